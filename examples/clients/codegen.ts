import type { CodegenConfig } from "@graphql-codegen/cli";

const config: CodegenConfig = {
  schema: "../../schema.graphql",
  documents: "queries/*.graphql",
  generates: {
    "src/generated/": {
      preset: "client",
      presetConfig: { fragmentMasking: false },
      config: {
        // null is what the gateway sends; undefined never
        avoidOptionals: true,
        // a scalar that is not in this list is an error, instead of an any
        strictScalars: true,
        scalars: {
          // what JSON.parse makes of a JSON integer; exact up to 2^53
          BigInt: "number",
          // RFC 3339 in UTC, for new Date(…)
          DateTime: "string",
        },
      },
    },
  },
};

export default config;
