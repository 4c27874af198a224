"""Client and server of a split model: two machines, two processes, or two threads of one process.

``client`` and ``server`` are the two sides, ``side`` what they share; ``endpoint`` encodes and sends while they
compute, in ``wire``'s frames over a ``transport`` shaped by a ``link``. ``control`` is the channel beside it, which a
``handshake`` opens, and over which a ``rendezvous`` joins the tensors' ends; ``network`` and ``launch`` start it all
over TCP, with a ``door`` for the server, ``simulated`` in one process.
"""
