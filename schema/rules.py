"""graphql-core's rules of validation, quicker, with the same verdict: a document that is met for the first time is mostly validation."""

from functools import cache
from typing import Any

from graphql import ASTValidationRule, specified_rules
from graphql.language.visitor import EnterLeaveVisitor
from graphql.validation import OverlappingFieldsCanBeMergedRule

from schema.merging import FieldsMergeRule

RULES = tuple(FieldsMergeRule if rule is OverlappingFieldsCanBeMergedRule else rule for rule in specified_rules)
# a rule finds nothing in a text that has none of these
NEEDED: dict[str, tuple[str, ...]] = {
    "SingleFieldSubscriptionsRule": ("subscription",),
    "FragmentsOnCompositeTypesRule": ("...", "fragment"),
    "UniqueFragmentNamesRule": ("fragment",),
    "KnownFragmentNamesRule": ("...",),
    "NoUnusedFragmentsRule": ("fragment",),
    "PossibleFragmentSpreadsRule": ("...",),
    "NoFragmentCyclesRule": ("fragment",),
    "VariablesAreInputTypesRule": ("$",),
    "UniqueVariableNamesRule": ("$",),
    "NoUndefinedVariablesRule": ("$",),
    "NoUnusedVariablesRule": ("$",),
    "VariablesInAllowedPositionRule": ("$",),
    "KnownDirectivesRule": ("@",),
    "UniqueDirectivesPerLocationRule": ("@",),
    "DeferStreamDirectiveOnRootField": ("@",),
    "DeferStreamDirectiveOnValidOperationsRule": ("@",),
    "DeferStreamDirectiveLabel": ("@",),
    "StreamDirectiveOnListField": ("@",),
    "MaxIntrospectionDepthRule": ("__",),
}
MARKS = tuple(sorted({mark for marks in NEEDED.values() for mark in marks}))
_NOTHING = EnterLeaveVisitor(None, None)


def rules_for(text: str) -> tuple[type[ASTValidationRule], ...]:
    """Those that may find something in a document of this text."""
    return _rules_for(tuple([mark in text for mark in MARKS]))


@cache
def _rules_for(found: tuple[bool, ...]) -> tuple[type[ASTValidationRule], ...]:
    there = {mark for mark, is_there in zip(MARKS, found, strict=True) if is_there}
    return tuple(rule for rule in _QUICK if rule.__name__ not in NEEDED or there.intersection(NEEDED[rule.__name__]))


class _Quick(ASTValidationRule):
    """Looks once per rule for what it does at a kind of node, where graphql-core looks once per document."""

    def get_enter_leave_for_kind(self, kind: str) -> EnterLeaveVisitor:
        rule: Any = type(self)  # mypy takes it for something that has no hash
        enter, leave = _names(rule, kind)
        if not (enter or leave):
            return _NOTHING
        return EnterLeaveVisitor(getattr(self, enter) if enter else None, getattr(self, leave) if leave else None)


@cache
def _names(rule: type[Any], kind: str) -> tuple[str | None, str | None]:
    """Of what a rule does when a node of this kind begins, and ends."""
    enter, leave = (next((name for name in (f"{when}_{kind}", when) if hasattr(rule, name)), None) for when in ("enter", "leave"))
    return enter, leave


_QUICK: tuple[type[ASTValidationRule], ...] = tuple(type(rule.__name__, (_Quick, rule), {}) for rule in RULES)
