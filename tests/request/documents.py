"""Documents that clients may send, and such as they should not, with variables: drawn by Hypothesis from a schema of one view."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

KEYS = ("a", "b", "id", "name", "__x")
# what may come for a value where a request is wild
WRONG: dict[str, list[Any]] = {
    "ID!": ["007", "x", "", 1, 7, True, None, 1.5, ["1"]],
    "String!": [1, None, False, ["x"]],
    "Boolean!": [None, "true", 1],
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """What requests are drawn from. roots: the name and the type of each one's argument."""

    row: str
    fields: Sequence[str]
    roots: Mapping[str, tuple[str, str]]
    ids: Sequence[str]
    lookups: Sequence[str]


@dataclass(slots=True)
class Asked:
    """A request. wild: with what is wrong in it, now and then."""

    text: str
    variables: Mapping[str, Any]
    operation: str | None
    wild: bool


@dataclass(slots=True)
class _Operation:
    """Its variables by name: the type, and the default as text."""

    draw: Any
    of: Drawn
    wild: bool
    prefix: str
    fragments: dict[str, str] = field(default_factory=dict)
    variables: dict[str, tuple[str, str | None]] = field(default_factory=dict)

    def chance(self, percent: int) -> bool:
        return bool(self.draw(st.integers(0, 99)) < percent)

    def one(self, options: Iterable[Any]) -> Any:
        return self.draw(st.sampled_from(list(options)))

    def variable(self, type_: str) -> str:
        """A variable of this type: one that is there, or a new one."""
        there = [name for name, (its, _) in self.variables.items() if its.rstrip("!") == type_.rstrip("!")]
        if there and self.chance(60):
            return f"${self.one(there)}"
        name = f"{self.prefix}{len(self.variables)}"
        default = json.dumps(self.value(type_)) if self.chance(30) else None
        self.variables[name] = (type_.rstrip("!") if default is not None and self.chance(50) else type_), default
        return f"${name}"

    def value(self, type_: str) -> Any:
        if type_ == "[ID!]!" and self.chance(10):
            # which GraphQL takes for a list of one
            return self.value("ID!")
        if type_ == "[ID!]!":
            return [self.value("ID!") for _ in range(self.draw(st.integers(0, 4)))]
        if self.wild and self.chance(15):
            return self.one(WRONG[type_])
        return self.one({"ID!": self.of.ids, "String!": self.of.lookups, "Boolean!": (True, False)}[type_])

    def argument(self, type_: str) -> str:
        if self.chance(50):
            return self.variable(type_)
        if type_ == "[ID!]!" and self.chance(90):
            return f"[{', '.join(self.argument('ID!') for _ in range(self.draw(st.integers(0, 4))))}]"
        value = self.value(type_ if type_ != "[ID!]!" else "ID!")
        if type_ == "ID!" and isinstance(value, str) and value.isdigit() and str(int(value)) == value and self.chance(20):
            return value
        return f'"""{value}"""' if type_ == "String!" and value and self.chance(10) else json.dumps(value)

    def directives(self) -> str:
        if not self.chance(15):
            return ""
        told = self.variable("Boolean!") if self.chance(70) else json.dumps(self.value("Boolean!"))
        return f" @{self.one(('skip', 'include'))}(if: {told})"

    def selections(self, on: str, depth: int) -> str:
        count = self.draw(st.integers(1, 4))
        return "{ " + " ".join(self.selection(on, depth, self.draw(st.integers(0, 9_999))) for _ in range(count)) + " }"

    def selection(self, on: str, depth: int, number: int) -> str:
        kind = self.draw(st.integers(0, 9))
        if kind < 7 or depth > 2:
            return self.root(number) if on == "Query" else self.leaf(number)
        if kind == 7:
            name = f"{on}{len(self.fragments)}"
            # its place is taken before its own selections are drawn
            self.fragments[name] = ""
            self.fragments[name] = f"fragment {name} on {on} {self.selections(on, depth + 1)}"
            return f"...{name}{self.directives()}"
        there = [name for name, text in self.fragments.items() if name.startswith(on) and text]
        if kind == 8 and there:
            return f"...{self.one(there)}{self.directives()}"
        condition = f" on {on}" if self.chance(70) else ""
        return f"...{condition}{self.directives()} {self.selections(on, depth + 1)}"

    def leaf(self, number: int) -> str:
        name = "nosuch" if self.wild and self.chance(2) else self.one(self.of.fields)
        alias = f"{self.one(KEYS)}{'' if self.chance(20) else number}: " if self.chance(25) else ""
        return f"{alias}{name}{self.directives()}"

    def root(self, number: int) -> str:
        if self.chance(8):
            return "__schema { queryType { name } }" if self.wild and self.chance(20) else "__typename"
        name = self.one(self.of.roots)
        argument, type_ = self.of.roots[name]
        alias = "" if self.chance(15 if self.wild else 3) else f"{self.one(KEYS)}{number}: "
        return f"{alias}{name}({argument}: {self.argument(type_)}){self.directives()} {self.selections(self.of.row, 1)}"


@st.composite
def requests(draw: Any, of: Drawn) -> Asked:
    """Of one operation or two, half of them wild."""
    wild, texts, variables = draw(st.booleans()), [], {}
    names = draw(st.sampled_from([[None], [None], ["One"], ["One", "Other"]]))
    for number, name in enumerate(names):
        operation = _Operation(draw, of, wild, "vw"[number])
        body = operation.selections("Query", 0)
        told = ", ".join(f"${key}: {type_}" + (f" = {default}" if default else "") for key, (type_, default) in operation.variables.items())
        head = f"query {name or ''}" + (f"({told})" if told else "") if name or told else ""
        # each operation has fragments of its own, of which two may not have one name
        text = "\n".join([f"{head} {body}", *operation.fragments.values()])
        texts.append(_renamed(text, operation.fragments) if number else text)
        for key, (type_, default) in operation.variables.items():
            if (default is None or operation.chance(60)) and not (wild and operation.chance(5)):
                variables[key] = operation.value(type_ if type_.endswith("!") else f"{type_}!")
    if wild and draw(st.integers(0, 9)) == 0:
        variables["unknown"] = 1
    asked = None if names == [None] else draw(st.sampled_from([*names, *names, "Nobody" if wild else names[0]]))
    return Asked("\n".join(texts), variables, asked, wild)


def _renamed(text: str, fragments: Iterable[str]) -> str:
    for name in fragments:
        text = re.sub(rf"(\.\.\.|fragment ){name}\b", rf"\g<1>{name}b", text)
    return text
