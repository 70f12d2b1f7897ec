"""Self-supervised pre-training of an image encoder on the images of bags, without actions.

`run.pretrain` trains a V-JEPA or I-JEPA (`models.py`) on clips (`loop.py`), and writes the encoder for the model
families that use a frozen one. Start reading in `run.py`.
"""
