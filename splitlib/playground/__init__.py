"""The playground: what a cut costs, seen before anything is trained.

``choice`` is what the controls say, ``bench`` measures and remembers, ``outlook`` predicts, ``controls`` are the
widgets and ``views`` what they show; ``training`` runs the choice in a thread and ``lab`` puts all on the screen.
"""
