"""Other people's training loops: what they need to train towards a symmetry, a few lines each.

``optimizer`` attaches a decay to any torch optimizer and is all that most loops want. The other files
subclass a framework's own types and are imported by name, with that framework installed: ``lightning``,
``transformers``, ``deepinv``, ``torchmetrics``, ``monai``.
"""
