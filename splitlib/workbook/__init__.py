"""Executing the workbook headlessly: what ``run_all.py`` is made of.

It knows notebooks and kernels, never models: nothing here imports torch.
"""
