"""One emulated core with a firmware in its memory, and calls of single functions in it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tinydeploy.emulate.arch import architecture_of
from tinydeploy.emulate.faults import THUMB_BIT, BadAccess, Stop
from tinydeploy.emulate.image import Image
from tinydeploy.emulate.toolchain import load_extra
from tinydeploy.errors import DeployError, MissingExtraError
from tinydeploy.targets import Core

# Unmapped ground lies around every region, so that what leaves a region faults.
RETURN_ADDRESS = 0x1000_0000
BUFFERS_ADDRESS = 0x3000_0000
STACK_BOTTOM = 0x4000_0000
STACK_BYTES = 256 * 1024
STACK_TOP = STACK_BOTTOM + STACK_BYTES
_PAGE = 0x1000

BlockHook = Callable[[Any, int, int, Any], None]
CodeHook = Callable[[Any, int, int, Any], None]
ReadHook = Callable[[Any, int, int, int, int, Any], None]


@dataclass(frozen=True)
class Layout:
    """What memory a core has beside the firmware's own segments; every address is a multiple of 4096.

    Attributes:
        return_address: a page of its own that calls return to.
        stack_bottom, stack_bytes: the stack, which calls start at the top of.
        rooms: first address and bytes of more memory that can be written; it may overlap the segments.
    """

    return_address: int
    stack_bottom: int
    stack_bytes: int
    rooms: tuple[tuple[int, int], ...]

    @property
    def stack_top(self) -> int:
        return self.stack_bottom + self.stack_bytes


def model_layout(buffer_bytes: int) -> Layout:
    """That of an exported model, with room for buffers outside the model from BUFFERS_ADDRESS on."""
    rooms = ((BUFFERS_ADDRESS, max(buffer_bytes, 1)),)
    return Layout(RETURN_ADDRESS, STACK_BOTTOM, STACK_BYTES, rooms)


class Cpu:
    """An emulated core that keeps its memory from call to call; one instance is not shared by threads.

    A floating-point unit is switched on, as start-up code would have done it.

    Attributes:
        architecture: its instruction set.

    Args:
        core: names the emulator's CPU model.
        image: the linked firmware; each segment is loaded at its run-time address.
        layout: the memory around it, or only the bytes of a model's outside buffers.

    Raises:
        MissingExtraError: unicorn is not installed.
        DeployError: the emulator has no such core.
    """

    def __init__(self, core: Core, image: Image, layout: Layout | int) -> None:
        unicorn = load_extra("unicorn", "unicorn")
        self._core, self._image = core, image
        self.architecture = architecture_of(core)
        self.layout = model_layout(layout) if isinstance(layout, int) else layout
        self._bad_access: BadAccess | None = None
        self._errors = unicorn.UcError
        self._block_hook, self._code_hook = unicorn.UC_HOOK_BLOCK, unicorn.UC_HOOK_CODE
        self._read_hook = unicorn.UC_HOOK_MEM_READ
        self.uc = self.architecture.open(core)
        self._load(unicorn)
        self.uc.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._remember_access, unicorn)

    def call(self, name: str, arguments: Sequence[int], seconds: float) -> int:
        """Calls a function with up to four word arguments and returns its word as a signed number.

        Args:
            name: the function's symbol.
            arguments: values of the registers for arguments.
            seconds: the longest that the call may take.

        Raises:
            DeployError: the code faulted, stopped elsewhere or did not come back in time.
        """
        return self.call_at(self._image.symbol(name).address, name, arguments, seconds)

    def call_at(self, address: int, name: str, arguments: Sequence[int], seconds: float) -> int:
        """The same for the function at an address; the name is that of messages."""
        call, layout = self.architecture.call, self.layout
        for register, value in zip(call.arguments, arguments, strict=False):
            self._set(register, value)
        self._set(call.stack, layout.stack_top)
        self._set(call.link, layout.return_address | call.state_bit)
        if call.globals is not None and self._image.global_pointer is not None:
            self._set(call.globals, self._image.global_pointer)
        self._bad_access = None
        try:
            self.uc.emu_start(address | call.state_bit, layout.return_address, timeout=int(seconds * 1e6))
        except self._errors as error:
            raise self._fault(error) from error
        # A hook or an interrupt may end the emulation too, and that looks like success: only the return
        # address and the stack pointer of the entry show that the function came back.
        if self.register(call.counter) != layout.return_address:
            waits = self.architecture.stopping_reason(self._core, self._stop())
            if waits is not None:
                raise DeployError(waits[0], where=self.where(), hint=waits[1])
            raise DeployError(f"{name} did not return within {seconds:g} s", where=self.where())
        if self.register(call.stack) != layout.stack_top:
            raise DeployError(f"{name} returned with another stack pointer", where=name)
        result = self.register(call.result)
        return result - (1 << 32) if result >= 1 << 31 else result

    def _fault(self, error: Exception) -> DeployError:
        reason = self.architecture.stopping_reason(self._core, self._stop())
        if reason is not None:
            return DeployError(f"the emulated core faulted: {reason[0]}", where=self.where(), hint=reason[1])
        hint = self.architecture.fault_hint
        return DeployError(f"the emulated core faulted: {error}", where=self.where(), hint=hint)

    def _stop(self) -> Stop:
        """Where the core stands now."""
        call = self.architecture.call
        address = self.register(call.counter) & ~1
        thumb = call.flags is not None and bool(self.register(call.flags) & THUMB_BIT)
        behind, at = self._try_read(address - 4, 4), self._try_read(address, 4)
        return Stop(address, thumb, behind, at, self._bad_access)

    def _try_read(self, address: int, size: int) -> bytes:
        try:
            return self.read(address, size)
        except self._errors:
            return b""

    def _remember_access(
        self, _uc: Any, kind: int, address: int, _size: int, _value: int, unicorn: Any
    ) -> bool:
        fetches = (unicorn.UC_MEM_FETCH_UNMAPPED, unicorn.UC_MEM_FETCH_PROT)
        writes = (unicorn.UC_MEM_WRITE_UNMAPPED, unicorn.UC_MEM_WRITE_PROT)
        protected = kind in (unicorn.UC_MEM_WRITE_PROT, unicorn.UC_MEM_READ_PROT, unicorn.UC_MEM_FETCH_PROT)
        what: Any = "fetch" if kind in fetches else "write" if kind in writes else "read"
        self._bad_access = BadAccess(what, address, protected)
        return False

    def where(self) -> str:
        """The function and offset that the program counter stands at."""
        return self._image.locate(self.register(self.architecture.call.counter) & ~1)

    def on_block(self, hook: BlockHook) -> None:
        """Calls ``hook(uc, address, size, None)`` before each straight run of instructions.

        A hook sees only code that is translated after it was added: add it before the first call.
        """
        self.uc.hook_add(self._block_hook, hook)

    def on_instruction(self, address: int, hook: CodeHook) -> None:
        """Calls ``hook(uc, address, size, None)`` before the one instruction at ``address``."""
        self.uc.hook_add(self._code_hook, hook, None, address, address)

    def on_instructions(self, start: int, end: int, hook: CodeHook) -> None:
        """Calls ``hook(uc, address, size, None)`` before each instruction in ``start`` to ``end - 1``."""
        self.uc.hook_add(self._code_hook, hook, None, start, end - 1)

    def on_read(self, start: int, end: int, hook: ReadHook) -> None:
        """Calls ``hook(uc, type, address, size, value, None)`` for each read of ``start`` to ``end - 1``."""
        self.uc.hook_add(self._read_hook, hook, None, start, end - 1)

    def hook_native(self, kind: str, function: Any, user: int, start: int = 1, end: int = 1) -> None:
        """Has the emulator itself call a C function, as the hooks above call one of Python.

        Args:
            kind: "block", "read" or "instruction".
            function: the function, of the emulator's signature for that kind.
            user: the pointer that it gets as its last argument.
            start, end: the addresses that it is called for; everywhere where they are left out.

        Raises:
            DeployError: the emulator's library is not where its Python package had it.
        """
        types = {"block": self._block_hook, "read": self._read_hook, "instruction": self._code_hook}
        handle = ctypes.c_size_t()
        last = end - 1 if end > start else 0  # a range that ends before it starts is everywhere
        pointer = ctypes.cast(function, ctypes.c_void_p)
        library, engine = self._native()
        status = library.uc_hook_add(engine, ctypes.byref(handle), types[kind], pointer, user, start, last)
        if status:
            raise DeployError(f"the emulator took no hook (status {status})", where=kind)

    @property
    def takes_native_hooks(self) -> bool:
        """Whether the emulator's library is where its Python package is known to have it."""
        try:
            return bool(self.native_register_reader())
        except DeployError:
            return False

    def native_register_reader(self) -> int:
        """Address of the emulator's C function that reads a register."""
        return ctypes.cast(self._native()[0].uc_reg_read, ctypes.c_void_p).value or 0

    def native_stop(self) -> int:
        """Address of the emulator's C function that ends a run from within a hook."""
        return ctypes.cast(self._native()[0].uc_emu_stop, ctypes.c_void_p).value or 0

    def register_id(self, name: str) -> int:
        """The emulator's number of a core register, named as for ``register``."""
        return self.architecture.register(name)

    def write(self, address: int, data: bytes) -> None:
        self.uc.mem_write(address, data)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.uc.mem_read(address, size)) if size else b""

    def register(self, name: str) -> int:
        """A core register's value, by capstone's or the architecture's name (r0, sp, cpsr; a0, sp, pc)."""
        return int(self.uc.reg_read(self.register_id(name)))

    def _set(self, name: str, value: int) -> None:
        self.uc.reg_write(self.register_id(name), value)

    def _native(self) -> tuple[Any, Any]:
        """The emulator's shared library and this core's handle in it."""
        try:
            return load_extra("unicorn.unicorn_py3.unicorn", "unicorn").uclib, self.uc._uch
        except (AttributeError, MissingExtraError) as error:
            raise DeployError("the emulator has no library to call", where="unicorn") from error

    def _load(self, unicorn: Any) -> None:
        readable, writable = unicorn.UC_PROT_READ, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE
        layout = self.layout
        pages: dict[int, int] = {}
        for segment in self._image.segments:
            protection = writable if segment.writable else readable
            if segment.executable or not segment.writable:
                protection |= unicorn.UC_PROT_EXEC
            last = segment.address + segment.size + (_PAGE if segment.writable else 0)
            for page in range(segment.address // _PAGE, -(-last // _PAGE)):
                pages[page] = pages.get(page, 0) | protection
        stack = (layout.stack_bottom, layout.stack_bytes)
        for start, size in (*layout.rooms, stack):
            for page in range(start // _PAGE, -(-(start + size) // _PAGE)):
                pages[page] = pages.get(page, 0) | writable
        page = layout.return_address // _PAGE
        pages[page] = pages.get(page, 0) | readable | unicorn.UC_PROT_EXEC
        for first, count, protection in _runs(pages):
            self.uc.mem_map(first * _PAGE, count * _PAGE, protection)
        for segment in self._image.segments:
            if segment.data:
                self.uc.mem_write(segment.address, segment.data)


def _runs(pages: dict[int, int]) -> list[tuple[int, int, int]]:
    """Neighbouring pages of one protection as (first page, number of pages, protection)."""
    runs: list[tuple[int, int, int]] = []
    for page, protection in sorted(pages.items()):
        if runs and runs[-1][0] + runs[-1][1] == page and runs[-1][2] == protection:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1, protection)
        else:
            runs.append((page, 1, protection))
    return runs
