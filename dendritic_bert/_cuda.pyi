"""The CUDA extension. Importing it registers the CUDA kernels with the ops of ``dendritic_bert.kernels.ops``.

The module has no names of its own.
"""
