/** What every client of the gateway needs, whatever its library: its errors and its headers. */

export type Mode = "view" | "cache-aside" | "cache-invalidate" | "sql";

/** From the headers of an answer: which mode answered, from which generation, and up to when everything is in it. */
export interface Origin {
  mode: string | null;
  generation: string | null;
  asOf: Date | null;
  fallback: string | null;
}

export type GatewayError = { readonly message: string; readonly extensions?: { readonly code?: unknown } };

// these pass by themselves, so asking again is right; docs/errors.md has every code
const PASSING: readonly unknown[] = ["NOT_READY", "OVERLOADED", "UNAVAILABLE"];

export function passing(errors: readonly GatewayError[] | undefined): boolean {
  return errors?.some((error) => PASSING.includes(error.extensions?.code)) ?? false;
}

/** The errors in the text of an answer; none if the gateway did not write it. */
export function errorsIn(text: string): readonly GatewayError[] {
  try {
    return JSON.parse(text).errors ?? [];
  } catch {
    return [];
  }
}

export function originOf(headers: Headers): Origin {
  const asOf = headers.get("viewgate-as-of");
  return {
    mode: headers.get("viewgate-mode"),
    generation: headers.get("viewgate-generation"),
    asOf: asOf === null ? null : new Date(asOf),
    fallback: headers.get("viewgate-fallback"),
  };
}

/** A fetch for any library: asks in a mode, where the gateway allows that, and tells where each answer came from. */
export function gatewayFetch(mode?: Mode, note?: (origin: Origin) => void): typeof fetch {
  return async (input, init) => {
    const headers = new Headers(init?.headers);
    // a GET without a header of its own could be another site's: docs/http.md
    headers.set("apollo-require-preflight", "1");
    if (mode) headers.set("viewgate-mode", mode);
    const response = await fetch(input, { ...init, headers });
    note?.(originOf(response.headers));
    return response;
  };
}
