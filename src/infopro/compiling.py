"""`torch.compile` for the same method of many objects."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import torch

__all__ = ["compile_alone"]


def compile_alone(method: MethodType, *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """Compile one object's method as a function of its own; arguments are those of `torch.compile`.

    torch counts recompilations per function and leaves the ninth uncompiled: the objects of one class would
    use that number up among them. So the method is copied first.
    """
    function = method.__func__
    own = FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    compiled: Callable[..., Any] = torch.compile(MethodType(own, method.__self__), *args, **kwargs)
    return compiled
