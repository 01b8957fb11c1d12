"""The queries that the pages ask or propose, made from a definition. Executes none."""

from dataclasses import dataclass

from schema.definition import Definition, Field
from schema.graphql import plural

HINT = "# Ctrl-Enter runs it, Ctrl-Space completes.\n# The variables are below."
# what the seed of the demo has, by view and field; of other views no value is known that would find anything
KNOWN = {("User", "username"): "code_1"}


@dataclass(frozen=True, slots=True)
class Example:
    """A query with one named operation, and its variables."""

    query: str
    variables: dict[str, object]


def examples(definition: Definition) -> list[Example]:
    """One row by its id, several at once, and one for each lookup."""
    return [_one(definition), _many(definition), *(_found(definition, field) for field in definition.lookups)]


def every_field(definition: Definition) -> str:
    """The query of everything that one row has, by the variable id."""
    return f"query Row($id: ID!) {{ {word(definition)}(id: $id) {{ {' '.join(_names(definition))} }} }}"


def word(definition: Definition) -> str:
    """The name of the query for one row: user of User."""
    return definition.name[0].lower() + definition.name[1:]


def _one(definition: Definition) -> Example:
    query = f"""\
{HINT}
query One{definition.name}($id: ID!) {{
  {word(definition)}(id: $id) {{
    {_lines(_names(definition), 4)}
  }}
}}
"""
    return Example(query, {"id": _ids(definition)[0]})


def _many(definition: Definition) -> Example:
    many = plural(definition.name)
    query = f"""\
# Two questions under names of their own,
# and a fragment that both use: one read.
query Many{many}($ids: [ID!]!, $other: ID!) {{
  several: {plural(word(definition))}(ids: $ids) {{
    ...Shown
  }}
  other: {word(definition)}(id: $other) {{
    ...Shown
  }}
}}

fragment Shown on {definition.name} {{
  id
  {_lines([definition.columns[0].camel, *(field.camel for field in definition.aggregates)], 2)}
}}
"""
    *ids, other = _ids(definition)
    return Example(query, {"ids": ids, "other": other})


def _found(definition: Definition, field: Field) -> Example:
    name = field.camel[0].upper() + field.camel[1:]
    value = KNOWN.get((definition.name, field.name), "")
    comment = f"# By its {field.camel}, without an id." + ("" if value else "\n# Write one into the variables below.")
    query = f"""\
{comment}
query {definition.name}By{name}($value: String!) {{
  {word(definition)}By{name}({field.camel}: $value) {{
    {_lines(_names(definition), 4)}
  }}
}}
"""
    return Example(query, {"value": value})


def _names(definition: Definition) -> list[str]:
    return ["id", *(field.camel for field in definition.fields)]


def _lines(names: list[str], indent: int) -> str:
    return ("\n" + " " * indent).join(names)


def _ids(definition: Definition) -> list[str]:
    """Ids that tables with a serial key have; no row need have them."""
    return ["1", "2", "3", "4"] if definition.key_type is int else ["a", "b", "c", "d"]
