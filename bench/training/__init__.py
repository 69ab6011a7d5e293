"""Networks made to order: trained or loaded, cached, interrupted and resumed.

Nothing that attacks a finished model, and no training method, belongs here.
"""
