"""Studies of why AlexNet, GoogLeNet and ResNet work, each also under attack; no methods of use by
themselves, which are in `models.explain`.
"""
