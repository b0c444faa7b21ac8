"""Models that run without this package: ONNX files, ``torch.export`` programs and AOTInductor packages.

``exporting`` is the entry. ``tables`` says what of a model is exported and computes what the results are compared
with; ``onnx_graph`` and ``torch_program`` each write one kind of file.
"""

from .exporting import FORMATS, ExportReport, export

__all__ = ["FORMATS", "ExportReport", "export"]
