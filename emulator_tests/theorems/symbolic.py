"""Linked code with unknown inputs, under Triton: every path of it, and what each demands of the inputs.

Triton executes one path at a time, with numbers, and says what its branches ask; a solver finds numbers for the others,
until there are none. An address that depends on an input must have one value on its path, or be a load from `Unknown`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from triton import (
    ARCH,
    EXCEPTION,
    MODE,
    OPCODE,
    OPERAND,
    SOLVER,
    SOLVER_STATE,
    Instruction,
    MemoryAccess,
    TritonContext,
)

from emulator_tests.theorems.linked import Code

STACK, RETURN = 0x7000_0000, 0x7FFF_0000
"""Where RSP points at the start, and where the function returns to: addresses of nothing else."""
LONGEST = 1000
"""Instructions of a path; whoever takes more does not end."""

Node = Any
"""A term of the solver."""
Inputs = Mapping[str, int]


class Refuted(AssertionError):
    """A theorem does not hold; one line with the inputs that show it."""


def require(condition: object, text: str) -> None:
    """Raise `Refuted` where that is false."""
    if not condition:
        raise Refuted(text)


@dataclass(frozen=True, slots=True)
class Unknown:
    """Memory of which every load gives anything at all; a load that reaches out of it refutes."""

    start: int
    end: int


@dataclass
class Machine:
    """A CPU and memory with some unknown contents."""

    code: Code
    inputs: Inputs
    unknown: Unknown | None = None
    conditions: list[Node] = field(default_factory=list)
    """What is assumed, and what has been asked on the way."""
    variables: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.context = TritonContext(ARCH.X86_64)
        for mode in (MODE.ALIGNED_MEMORY, MODE.AST_OPTIMIZATIONS, MODE.CONSTANT_FOLDING):
            self.context.setMode(mode, True)
        self.context.setSolver(SOLVER.BITWUZLA)
        self.terms: Any = self.context.getAstContext()
        for address, data in self.code.constants():
            self.write(address, data)
        self.put("rsp", STACK)
        self.write(STACK, RETURN.to_bytes(8, "little"))

    def put(self, register: str, value: int) -> None:
        """A register that is known."""
        self.context.setConcreteRegisterValue(getattr(self.context.registers, register), value)

    def write(self, address: int, data: bytes) -> None:
        """Memory that is known."""
        self.context.setConcreteMemoryAreaValue(address, data)

    def any(self, register: str, name: str) -> Node:
        """A register that may hold anything."""
        place = getattr(self.context.registers, register)
        self.context.setConcreteRegisterValue(place, self.inputs.get(name, 0))
        return self._variable(name, self.context.symbolizeRegister(place, name))

    def any_at(self, address: int, size: int, name: str) -> Node:
        """`size` bytes of memory, a power of two up to 64, that may hold anything."""
        place = MemoryAccess(address, size)
        self.context.setConcreteMemoryValue(place, self.inputs.get(name, 0))
        return self._variable(name, self.context.symbolizeMemory(place, name))

    def _variable(self, name: str, symbol: Any) -> Node:
        self.variables[name] = self.terms.variable(symbol)
        return self.variables[name]

    def number(self, value: int, bits: int = 64) -> Node:
        """A number as a term."""
        return self.terms.bv(value % (1 << bits), bits)

    def register(self, name: str) -> Node:
        """What a register holds."""
        return self.context.getRegisterAst(getattr(self.context.registers, name))

    def memory(self, address: int, size: int) -> Node:
        """What memory holds."""
        return self.context.getMemoryAst(MemoryAccess(address, size))

    def every(self, conditions: Sequence[Node]) -> Node:
        """All of them together, however few."""
        always = self.terms.equal(self.terms.bvtrue(), self.terms.bvtrue())
        return self.terms.land([always, always, *conditions])

    def assume(self, condition: Node) -> None:
        """Only inputs for which this is true."""
        self.conditions.append(condition)

    def model(self, *more: Node) -> dict[str, int] | None:
        """Inputs for which all conditions and `more` hold; None without any."""
        found, state, _ = self.context.getModel(self.every([*self.conditions, *more]), True)
        if state == SOLVER_STATE.UNSAT:
            return None
        if state != SOLVER_STATE.SAT:
            raise AssertionError(f"the solver gives up: {state}")
        return {self.context.getSymbolicVariable(key).getAlias(): one.getValue() for key, one in found.items()}

    def prove(self, claim: Node, text: str) -> None:
        """Raise `Refuted` if inputs that come here can have the claim be false."""
        found = self.model(self.terms.lnot(claim))
        if found is not None:
            shown = ", ".join(f"{name} {value:#x}" for name, value in sorted(found.items()))
            raise Refuted(f"{text}: {shown or 'always'}")

    def run(self, start: int, stops: Collection[int]) -> tuple[int, list[tuple[list[Node], Node]]]:
        """Until one of the stops: which one, and for each branch the conditions before it and its other side's."""
        others: list[tuple[list[Node], Node]] = []
        address, steps = start, 0
        while not steps or address not in stops:
            self._step(address)
            others += self._branches()
            address = self.context.getConcreteRegisterValue(self.context.registers.rip)
            steps += 1
            if steps > LONGEST:
                raise Refuted(f"does not end: {LONGEST} instructions, the last at {address:#x}")
        return address, others

    def _step(self, address: int) -> None:
        code = self.code.at(address)
        if not code:
            raise Refuted(f"goes on at {address:#x}, where no code is")
        instruction = Instruction(code)
        instruction.setAddress(address)
        self.context.disassembly(instruction)
        undefined: frozenset[int] = frozenset()
        if instruction.getType() not in {OPCODE.X86.LEA, OPCODE.X86.NOP}:
            for operand in instruction.getOperands():
                if operand.getType() == OPERAND.MEM:
                    self._pin(instruction, operand)
                    undefined |= self._undefined(self._address(operand).evaluate(), operand.getSize())
        if self.context.buildSemantics(instruction) != EXCEPTION.NO_FAULT:
            raise AssertionError(f"unknown to the engine: {instruction}")
        for place, _ in instruction.getLoadAccess():
            if place.getAddress() in undefined or self._undefined(place.getAddress(), place.getSize()):
                raise Refuted(f"{instruction} reads what nothing has defined")

    def _undefined(self, address: int, size: int) -> frozenset[int]:
        """The address, if not all of the bytes there have a value."""
        is_defined = self.context.isConcreteMemoryValueDefined(MemoryAccess(address, size))
        return frozenset() if is_defined else frozenset({address})

    def _pin(self, instruction: Any, operand: Any) -> None:
        """Of an operand in memory whose address depends on inputs: it has one value here, or is a load of anything."""
        used = [one for one in (operand.getBaseRegister(), operand.getIndexRegister()) if self._is_known(one)]
        if not any(map(self.context.isRegisterSymbolized, used)):
            return
        term = self._address(operand)
        value = term.evaluate()
        if self.model(self.terms.distinct(term, self.number(value))) is None:
            return
        if self.unknown is None or instruction.getOperands()[0] == operand:
            raise Refuted(f"{instruction}: its address depends on inputs")
        last = self.number(self.unknown.end - operand.getSize())
        inside = self.terms.land(
            [self.terms.bvuge(term, self.number(self.unknown.start)), self.terms.bvule(term, last)]
        )
        self.prove(inside, f"{instruction} reads elsewhere")
        self.any_at(value, operand.getSize(), f"load {len(self.variables)}")

    def _address(self, operand: Any) -> Node:
        term = self.number(operand.getDisplacement().getValue())
        scale = self.number(operand.getScale().getValue() or 1)
        for register, times in ((operand.getBaseRegister(), None), (operand.getIndexRegister(), scale)):
            if self._is_known(register):
                one = self.context.getRegisterAst(register)
                term = self.terms.bvadd(term, self.terms.bvmul(one, times) if times else one)
        return term

    def _is_known(self, register: Any) -> bool:
        return bool(self.context.isRegisterValid(register))

    def _branches(self) -> Iterator[tuple[list[Node], Node]]:
        for branch in self.context.getPathConstraints():
            before = list(self.conditions)
            yield from ((before, one["constraint"]) for one in branch.getBranchConstraints() if not one["isTaken"])
            self.conditions.append(branch.getTakenPredicate())
        self.context.clearPathConstraints()


@dataclass(frozen=True, slots=True)
class Path:
    """One way through the code; all inputs that take it are those for which the machine's conditions hold."""

    machine: Machine
    end: int

    def prove(self, claim: Node, text: str) -> None:
        """Raise `Refuted` if there are inputs that take this path for which the claim is false."""
        self.machine.prove(claim, text)

    def prove_all(self, claims: Iterable[tuple[Node, str]]) -> None:
        """`prove` each, with one question to the solver where they hold."""
        known = list(claims)
        together = self.machine.every([claim for claim, _ in known])
        if self.machine.model(self.machine.terms.lnot(together)) is not None:
            for claim, text in known:
                self.prove(claim, text)

    def ends_at(self, address: int) -> None:
        """Raise `Refuted` if it ends elsewhere."""
        require(self.end == address, f"ends at {self.end:#x}, not {address:#x}")


def paths(
    code: Code,
    start: int,
    prepare: Callable[[Machine], None],
    stops: Collection[int] = (RETURN,),
    unknown: Unknown | None = None,
) -> Iterator[Path]:
    """Every path from `start` to a stop, for all inputs that `prepare` makes and assumes."""
    first = Machine(code, {}, unknown)
    prepare(first)
    some = first.model()
    if some is None:
        raise AssertionError("no inputs: what is assumed contradicts itself")
    work: list[tuple[Inputs, int]] = [(some, 0)]
    while work:
        inputs, known = work.pop()
        machine = Machine(code, inputs, unknown)
        prepare(machine)
        end, others = machine.run(start, stops)
        for number, (before, other) in enumerate(others[known:], known + 1):
            found = _model(machine, before, other)
            if found is not None:
                work.append((found, number))
        yield Path(machine, end)


def _model(machine: Machine, before: list[Node], other: Node) -> dict[str, int] | None:
    conditions, machine.conditions = machine.conditions, [*before, other]
    try:
        return machine.model()
    finally:
        machine.conditions = conditions
