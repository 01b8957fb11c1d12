"""Bodies that cost a gateway as much as a body of 16 kB can: shapes of our own, for the bench and the fuzzing. All do no more than ask."""

from collections.abc import Callable, Mapping

from bench.closed_loop import body as query

LARGEST = 16_384
ID = '{ user(id: "1") { id } }'


def filled(head: str, piece: Callable[[int], str], tail: str, room: int = LARGEST - 100) -> str:
    """As many pieces as there is room for."""
    pieces: list[str] = []
    size = len(head) + len(tail)
    while size + len(piece(len(pieces))) <= room:
        pieces.append(piece(len(pieces)))
        size += len(pieces[-1])
    return head + "".join(pieces) + tail


def within_tokens(head: str, piece: Callable[[int], str], tail: str, pieces: int) -> str:
    return head + "".join(map(piece, range(pieces))) + tail


def doubled(levels: int) -> str:
    """Fragments that spread the next one twice."""
    spreads = " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(levels))
    return f"{{ ...F0 }} {spreads} fragment F{levels} on Query {{ __typename }}"


def introspected(levels: int) -> str:
    return "{ __schema { types { fields { type" + " { fields { type" * levels + " { name }" + " } }" * levels + " } } } }"


BODIES: Mapping[str, bytes] = {
    # of JSON
    "nothing": b"",
    "spaces": b" " * LARGEST,
    "zeros": b"\x00" * LARGEST,
    "arrays in arrays": b"[" * LARGEST,
    "objects in objects": b'{"variables":' * 1200,
    "objects in a variable": b'{"query":"{ __typename }","variables":' + b'{"a":' * 2700 + b"1" + b"}" * 2700 + b"}",
    "arrays in an id": b'{"query":"query ($i: ID!) { user(id: $i) { id } }","variables":{"i":' + b"[" * 8000 + b"]" * 8000 + b"}}",
    "arrays in ids": b'{"query":"query ($i: [ID!]!) { users(ids: $i) { id } }","variables":{"i":' + b"[" * 400 + b"]" * 400 + b"}}",
    "keys twice": b"{" + b'"query":"{a}",' * 1100 + b'"query":"{a}"}',
    "many keys": filled('{"query":"{ __typename }"', lambda n: f',"k{n}":{n}', "}").encode(),
    "a batch": b"[" + b'{"query":"{a}"},' * 900 + b'{"query":"{a}"}]',
    "a long number": b'{"query":"query ($i: ID!) { user(id: $i) { id } }","variables":{"i":' + b"9" * 16_000 + b"}}",
    "a number with an exponent": b'{"query":"query ($i: ID!) { user(id: $i) { id } }","variables":{"i":1e999999999}}',
    "escapes": b'{"query":"' + b"\\u007b" * 2700 + b'"}',
    "half of a pair": b'{"query":"{ user(id: \\"\\ud800\\") { id } }"}',
    "no UTF-8": b'{"query":"' + b"\xff\xfe" * 8000 + b'"}',
    "a name of everything": query("{ " + "a" * 16_000 + " }"),
    "an operation's long name": b'{"query":"{ __typename }","operationName":"' + b"A" * 16_000 + b'"}',
    "a hash that is none": b'{"extensions":{"persistedQuery":{"sha256Hash":"' + b"f" * 16_000 + b'"}}}',
    "a long document id": b'{"documentId":"' + b"sha256:" * 2000 + b'"}',
    # of the lexer
    "names": query(filled("{", lambda _: "a ", "}")),
    "braces": query("{" * 16_000),
    "comments": query(filled("", lambda _: "#\n", ID, LARGEST // 2)),
    "a comment": query("#" * 16_000 + "\n" + ID),
    "lines": query("\n" * 8_000 + "{ nothing }"),
    "a string": query('{ user(id: "' + "a" * 16_000 + '") { id } }'),
    "a block string": query('{ user(id: """' + "\n a" * 4_000 + '""") { id } }'),
    "block strings": query(filled("{", lambda n: f'a{n}: user(id: """\n  1\n""") {{ id }} ', "}", LARGEST * 2 // 3)),
    "commas": query("{" + "," * 16_000 + "__typename }"),
    "byte order marks": query("\ufeff" * 5_000 + ID),
    "characters of four bytes": query('{ user(id: "' + "\U0001f600" * 4_000 + '") { id } }'),
    "a string without an end": query('{ user(id: "' + "\\\\" * 4_000),
    # of the parser
    "selections in selections": query("{ a " * 3_000),
    "lists in lists": query("{ users(ids: " + "[" * 450 + "]" * 20),
    "objects in objects, as an argument": query("{ user(id: " + "{a: " * 200 + "1" + "}" * 200 + ") { id } }"),
    "types in types": query("query ($a: " + "[" * 240 + "ID" + "]" * 240 + ") { __typename }"),
    # of validation, within the tokens
    "fields that are none": query(within_tokens("{ ", lambda n: f"nothing{n} ", "}", 490)),
    "near names": query(within_tokens('{ user(id: "1") { ', lambda n: f"usernam{n} ", "} }", 480)),
    "one field": query("{ " + "__typename " * 490 + "}"),
    "one user": query("{ " + 'user(id: "1") { id } ' * 55 + "}"),
    "one user, its field often": query('{ user(id: "1") { ' + "id " * 480 + "} }"),
    "aliases": query(within_tokens("{ ", lambda n: f"a{n}: __typename ", "}", 160)),
    "aliases that clash": query("{ " + 'a: user(id: "1") { id } a: user(id: "2") { name } ' * 22 + "}"),
    "operations": query(within_tokens("", lambda n: f"query Q{n} {{ __typename }} ", "", 95)),
    "operations of one name": query("query Q { __typename } " * 95),
    "fragments": query(within_tokens("{ ...F0 } ", lambda n: f"fragment F{n} on User {{ id }} ", "", 70)),
    "fragments in a ring": query(
        "{ ...F0 } " + " ".join(f"fragment F{n} on Query {{ ...F{(n + 1) % 60} }}" for n in range(60)),
    ),
    "fragments twice": query(doubled(45)),
    "fragments that spread all others": query(
        "{ ...F0 } " + " ".join(f"fragment F{n} on Query {{ {' '.join(f'...F{m}' for m in range(14) if m != n)} }}" for n in range(14))
    ),
    "fragments that are none": query(within_tokens("{ ", lambda n: f"...F{n} ", "}", 240)),
    "inline fragments": query("{ " + "... on Query { " * 120 + "__typename" + " }" * 120 + "}"),
    "directives": query("{ __typename " + "@skip(if: false) " * 80 + "}"),
    "directives that are none": query(within_tokens("{ __typename ", lambda n: f"@d{n} ", "}", 240)),
    "variables": query(within_tokens("query (", lambda n: f"$v{n}: ID ", ") { __typename }", 95)),
    "variables of one name": query("query (" + "$v: ID " * 95 + ") { __typename }"),
    "variables that are none": query(within_tokens("{ ", lambda n: f"a{n}: user(id: $v{n}) {{ id }} ", "}", 29)),
    "arguments": query(within_tokens("{ user(", lambda n: f"a{n}: 1 ", ") { id } }", 150)),
    "ids": query(within_tokens("{ users(ids: [", lambda n: f"{n} ", "]) { id } }", 480)),
    "ids in a variable": query("query ($i: [ID!]!) { users(ids: $i) { id } }", {"i": [str(n) for n in range(1_800)]}),
    "ids that are none": query("query ($i: [ID!]!) { users(ids: $i) { id } }", {"i": ["007"] * 100}),
    "ids of another type": query("query ($i: [ID!]!) { users(ids: $i) { id } }", {"i": [{"a": [1] * 20}] * 100}),
    "long ids": query("query ($i: [ID!]!) { users(ids: $i) { id } }", {"i": ["9" * 150] * 100}),
    # of the executor
    "introspection": query(introspected(2)),
    "introspection, deep": query(introspected(40)),
    "introspection, wide": query(within_tokens("{ ", lambda n: f"a{n}: __schema {{ types {{ name fields {{ name }} }} }} ", "}", 19)),
    "introspection, by a fragment": query(
        within_tokens("{ ", lambda n: f"a{n}: __schema {{ ...S }} ", "} ", 15)
        + "fragment S on __Schema { types { ...T } directives { name args { ...I } } } fragment T on __Type { kind name description "
        + "fields(includeDeprecated: true) { name description args { ...I } type { ...R } isDeprecated } inputFields { ...I } "
        + "enumValues { name } possibleTypes { name } } fragment I on __InputValue { name description type { ...R } defaultValue } "
        + "fragment R on __Type { kind name ofType { kind name ofType { kind name ofType { kind name } } } }"
    ),
    "types by name": query(within_tokens("{ ", lambda n: f't{n}: __type(name: "User") {{ fields {{ name args {{ name }} }} }} ', "}", 19)),
    "users": query(
        within_tokens("{ ", lambda n: f'a{n}: user(id: "1") {{ id username name description location followerCount }} ', "}", 20)
    ),
    "a hundred users": query("query ($i: [ID!]!) { users(ids: $i) { id username name } }", {"i": [str(n) for n in range(100)]}),
    "a hundred users, ten times": query(
        "query ($i: [ID!]!) { " + "".join(f"a{n}: users(ids: $i) {{ id username name }} " for n in range(10)) + "}",
        {"i": [str(n) for n in range(100)]},
    ),
}
