"""One emulated core with a firmware in its memory, and calls of single functions in it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

from tinydeploy.emulate.arch import architecture_of
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


class Cpu:
    """An emulated core that keeps its memory from call to call; one instance is not shared by threads.

    Attributes:
        architecture: its instruction set.

    Args:
        core: names the emulator's CPU model.
        image: the linked firmware; each segment is loaded at its run-time address.
        buffer_bytes: room for buffers outside the model, from BUFFERS_ADDRESS on.

    Raises:
        MissingExtraError: unicorn is not installed.
        DeployError: the emulator has no such core.
    """

    def __init__(self, core: Core, image: Image, buffer_bytes: int) -> None:
        unicorn = load_extra("unicorn", "unicorn")
        self._image = image
        self.architecture = architecture_of(core)
        self._errors = unicorn.UcError
        self._block_hook, self._code_hook = unicorn.UC_HOOK_BLOCK, unicorn.UC_HOOK_CODE
        self._read_hook = unicorn.UC_HOOK_MEM_READ
        self.uc = self.architecture.open(core)
        self._load(unicorn, buffer_bytes)

    def call(self, name: str, arguments: Sequence[int], seconds: float) -> int:
        """Calls a function with up to four word arguments and returns its word as a signed number.

        Args:
            name: the function's symbol.
            arguments: values of the registers for arguments.
            seconds: the longest that the call may take.

        Raises:
            DeployError: the code faulted, stopped elsewhere or did not come back in time.
        """
        call = self.architecture.call
        for register, value in zip(call.arguments, arguments, strict=False):
            self._set(register, value)
        self._set(call.stack, STACK_TOP)
        self._set(call.link, RETURN_ADDRESS | call.state_bit)
        start = self._image.symbol(name).address | call.state_bit
        try:
            self.uc.emu_start(start, RETURN_ADDRESS, timeout=int(seconds * 1e6))
        except self._errors as error:
            hint = self.architecture.fault_hint
            raise DeployError(f"the emulated core faulted: {error}", where=self.where(), hint=hint) from error
        # A hook or an interrupt may end the emulation too, and that looks like success: only the return
        # address and the stack pointer of the entry show that the function came back.
        if self.register(call.counter) != RETURN_ADDRESS:
            raise DeployError(f"{name} did not return within {seconds:g} s", where=self.where())
        if self.register(call.stack) != STACK_TOP:
            raise DeployError(f"{name} returned with another stack pointer", where=name)
        result = self.register(call.result)
        return result - (1 << 32) if result >= 1 << 31 else result

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

    def _load(self, unicorn: Any, buffer_bytes: int) -> None:
        readable, writable = unicorn.UC_PROT_READ, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE
        pages: dict[int, int] = {}
        for segment in self._image.segments:
            protection = writable if segment.writable else readable | unicorn.UC_PROT_EXEC
            last = segment.address + segment.size + (_PAGE if segment.writable else 0)
            for page in range(segment.address // _PAGE, -(-last // _PAGE)):
                pages[page] = pages.get(page, 0) | protection
        for first, count, protection in _runs(pages):
            self.uc.mem_map(first * _PAGE, count * _PAGE, protection)
        for segment in self._image.segments:
            if segment.data:
                self.uc.mem_write(segment.address, segment.data)
        self.uc.mem_map(RETURN_ADDRESS, _PAGE, readable | unicorn.UC_PROT_EXEC)
        self.uc.mem_map(BUFFERS_ADDRESS, -(-max(buffer_bytes, 1) // _PAGE) * _PAGE, writable)
        self.uc.mem_map(STACK_BOTTOM, STACK_BYTES, writable)


def _runs(pages: dict[int, int]) -> list[tuple[int, int, int]]:
    """Neighbouring pages of one protection as (first page, number of pages, protection)."""
    runs: list[tuple[int, int, int]] = []
    for page, protection in sorted(pages.items()):
        if runs and runs[-1][0] + runs[-1][1] == page and runs[-1][2] == protection:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1, protection)
        else:
            runs.append((page, 1, protection))
    return runs
