"""Text classification with a BERT vocabulary and no encoder, one fused kernel from token ids to logits."""

from pathlib import Path

# In a checkout that is not installed, `kernels/` lies beside this folder rather than inside it; an installed package
# has it inside. The folder cannot be a top-level package of its own: transformers would import it as Hugging Face's.
if (Path(__file__).resolve().parent.parent / "kernels" / "ops.py").exists():
    __path__.append(str(Path(__file__).resolve().parent.parent))
