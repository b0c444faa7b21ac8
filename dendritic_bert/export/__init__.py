"""Models that run without this package: ONNX files, ``torch.export`` programs, AOTInductor packages, engine files.

``exporting`` is the entry. ``tables`` says what of a model is exported and computes what the results are compared
with; ``onnx_graph``, ``torch_program`` and ``engine_file`` each write one kind of file.
"""

from .exporting import FORMATS, ExportReport, export

__all__ = ["FORMATS", "ExportReport", "export"]
