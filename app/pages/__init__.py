"""What a browser gets: the front page, GraphiQL and the docs, without a network. Reads nothing from a store: its scripts ask /graphql."""
