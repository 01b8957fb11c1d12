"""/graphql: GraphQL over HTTP, as its specification and `graphql-http`'s audits have it. docs/http.md says what a client sees."""
