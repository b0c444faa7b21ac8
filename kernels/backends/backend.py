"""What a backend says about itself: to the choice of backends, and to the registration of its operators."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


def constant(function: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.compiler.assume_constant_result``: torch.compile calls the function and does not trace it.

    That decorator imports all of dynamo, which takes two seconds; this one sets the mark that dynamo looks for.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@dataclass(frozen=True)
class Backend:
    """A set of kernels. Its operators are ``dendritic_bert::<op>_<name>``, with the schemas of ``registration``.

    name: that of its module, by which the argument ``backend`` and the environment variable call it.
    device_type: the ``torch.device.type`` of the memory that its kernels read.
    table_dtypes: the ops that it has kernels for, each with the dtypes that the word table may have.
    missing: why its kernels are not there at all, with the remedy, or None. It is what an import can find out without
        starting a device.
    no_device: returns why no device of this machine can run the kernels, or None. It may start the device's driver.
    largest: the most channels that the kernels of an op take: of the word table, or of a window layer in
        ``dsn_window_logits``. Other ops take any number.
    largest_reach: the most columns to each side that the windows of ``dsn_window_logits`` may see, or None for any
        number.
    device_refusal: returns why the kernels cannot run on a device of the right type, or None. Both are None themselves
        where the kernels run on every device of that type, and every machine has one.
    raises_on_values: whether a call raises where an index lies outside its table. Kernels on a GPU would have to be
        waited for, so that those read nothing and make the row NaN instead.
    define: defines an operator, given the op and the schema, and returns the names of what it defined: nothing where
        it has no kernel. Where ``define`` is None, the schema alone is defined, and the backend attaches its kernels to
        it through torch.library.
    is_lazy: whether the first call that the backend serves defines the operators, rather than the import of ``ops``.
    """

    name: str
    device_type: str
    table_dtypes: Mapping[str, tuple[torch.dtype, ...]]
    missing: str | None
    no_device: Callable[[], str | None] | None = None
    largest: Mapping[str, int] = field(default_factory=dict)
    largest_reach: int | None = None
    device_refusal: Callable[[torch.device], str | None] | None = None
    raises_on_values: bool = True
    define: Callable[[str, str], tuple[str, ...]] | None = None
    is_lazy: bool = False

    def unavailable(self) -> str | None:
        """Why the kernels cannot run on this machine, or None. It may start the device's driver."""
        if self.missing is not None or self.no_device is None:
            return self.missing
        return self.no_device()

    def refusal(self, op: str, device: torch.device, dtype: torch.dtype, channels: int = 0, reach: int = 0
                ) -> str | None:
        """Why the kernels cannot serve ``op`` with a table of ``dtype`` and ``channels``, and windows that see
        ``reach`` columns to each side, on ``device``, or None."""
        if self.missing is not None:
            return self.missing
        if device.type != self.device_type:
            return f"the tensors are on {device.type}, the {self.name} backend reads memory on {self.device_type}"
        if op not in self.table_dtypes:
            return f"the {self.name} backend has no kernel for {op}"
        dtypes = self.table_dtypes[op]
        if dtype not in dtypes:
            return f"the word table is {dtype}, the {self.name} backend reads {', '.join(map(str, dtypes))}"
        if op in self.largest and channels > self.largest[op]:
            return f"{op} has {channels} channels, the {self.name} backend takes {self.largest[op]} at most"
        if self.largest_reach is not None and reach > self.largest_reach:
            return (f"windows see {reach} columns to each side, those of the {self.name} backend {self.largest_reach} "
                    "at most")
        return None if self.device_refusal is None else self.device_refusal(device)
