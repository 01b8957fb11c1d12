"""What a browser gets: the front page, /compare, GraphiQL and the docs, without a network. Reads no store: its scripts ask /graphql."""
