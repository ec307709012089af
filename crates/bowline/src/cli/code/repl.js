// Runs one line after the other; each is a script that gives an async function. `values` says whether
// the host wants the values besides how they look.
export default async (values) => {
  const evaluate = globalThis.eval;
  const { log } = console;
  const { next } = __prompt;
  const { defineProperty, getOwnPropertyDescriptor } = Object;
  // What may be redefined is made assignable, or not.
  const assignable = (names, writable) => {
    for (const name of names) {
      const found = getOwnPropertyDescriptor(globalThis, name);
      if (!found) globalThis[name] = undefined;
      else if (found.configurable && "value" in found) defineProperty(globalThis, name, { writable });
    }
  };
  const keep = {
    open: (...names) => assignable(names, true),
    hold: (...names) => assignable(names, false),
  };
  const ask = async (said, instead) => {
    try {
      return await next(said);
    } catch {
      // It has no form outside, as a function has none.
      return await next(instead);
    }
  };
  // Without one it ends: then the engine tells the rejections that nobody handled.
  let script = await next();
  while (script !== undefined) {
    let said = {};
    let instead = {};
    try {
      const value = await evaluate(script)(keep);
      if (value !== undefined) {
        globalThis._ = value;
        log("\0%o", value);
        if (values) said = { value };
      }
    } catch (error) {
      said = { error };
      instead = { error: "a value that cannot be shown" };
    }
    script = await ask(said, instead);
  }
};
