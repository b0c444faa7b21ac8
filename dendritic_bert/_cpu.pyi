"""The C++ extension of the CPU kernels. Importing it registers them with the ops of ``dendritic_bert.kernels.ops``."""

def instruction_set() -> str:
    """The instruction set whose kernels serve this processor: "avx512", "avx2" or "baseline"."""
