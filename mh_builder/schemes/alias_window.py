"""`alias-window`: the bottom 4 GiB 1:1, all RAM once more by `ram_addr` in a window above; requests carry `ram_addr`.

The window starts at 4 GiB, or (`alias-window-high`) at 2^(MAXPHYADDR - reduction - 1), which no system
address of the part exceeds. The helper's tables map the window and the helper itself, not the 1:1 part:
a second private view of low RAM would be one more way to every page of it. The window has a hole where
the helper lies. RAM without a GPA has a `ram_addr`, so it can be moved.
"""

from __future__ import annotations

from mh_abi import abi
from mh_builder.paging import GIB
from mh_builder.schemes.space import AddressSpace, LayoutError, Options, Scheme, checked

_WINDOW = 4 * GIB


def _at_4g(options: Options, memory_bytes: int) -> AddressSpace:
    """Decide the address space with the window at 4 GiB."""
    return _space(AT_4G.name, _WINDOW, options, memory_bytes)


def _high(options: Options, memory_bytes: int) -> AddressSpace:
    """Decide the address space with the window at the part's highest system address bit."""
    return _space(HIGH.name, 1 << options.window_bit, options, memory_bytes)


def _space(name: str, window: int, options: Options, memory_bytes: int) -> AddressSpace:
    if options.base not in (None, options.home):
        raise LayoutError(f"{name}: base {options.base:#x} is not the home {options.home:#x}: the mirror sees it 1:1")
    return checked(
        AddressSpace(
            name=name,
            scheme_id=abi.mh_scheme.MH_SCHEME_ALIAS_WINDOW.value,
            addresses=abi.mh_address_kind.MH_ADDRESS_RAM.value,
            options=options,
            base=options.home,
            home=options.home,
            window=window,
            moves=False,
            memory_bytes=memory_bytes,
        )
    )


_NUMBER = abi.mh_scheme.MH_SCHEME_ALIAS_WINDOW

AT_4G = Scheme("alias-window", _NUMBER, _at_4g, is_low=True, window=_WINDOW)
HIGH = Scheme("alias-window-high", _NUMBER, _high, is_low=True)
