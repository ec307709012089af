// One text for each value, the same in every engine.
const show = (v, depth = 0) => {
  if (depth > 6) return "...";
  const next = (x) => show(x, depth + 1);
  if (typeof v === "bigint") return `${v}n`;
  if (typeof v === "string") return JSON.stringify(v);
  if (typeof v === "symbol") return String(v);
  if (typeof v === "function") return "function";
  if (typeof v !== "object" || v === null) return Object.is(v, -0) ? "-0" : String(v);
  if (v instanceof Date) return `Date(${v.getTime()})`;
  if (v instanceof RegExp) return String(v);
  if (v instanceof Error) return `${v.name}`;
  if (v instanceof Map) return `Map{${[...v].map(([k, x]) => `${next(k)}=>${next(x)}`).join()}}`;
  if (v instanceof Set) return `Set{${[...v].map(next).join()}}`;
  if (v instanceof ArrayBuffer) return `ArrayBuffer[${[...new Uint8Array(v)].join()}]`;
  if (ArrayBuffer.isView(v) && !(v instanceof DataView)) return `${v.constructor.name}[${Array.from(v, next).join()}]`;
  if (Array.isArray(v)) {
    const out = [];
    for (let i = 0; i < v.length; i++) out.push(i in v ? next(v[i]) : "<hole>");
    const extra = Object.keys(v).filter((k) => !/^\d+$/.test(k)).map((k) => `${k}:${next(v[k])}`);
    return `[${[...out, ...extra].join()}]`;
  }
  return `{${Reflect.ownKeys(v).filter((k) => Object.prototype.propertyIsEnumerable.call(v, k)).map((k) => `${String(k)}:${next(v[k])}`).join()}}`;
};

export async function outcome(load) {
  try {
    const module = await load();
    let value = module.default;
    if (typeof value === "function" && !/^class\b/.test(Function.prototype.toString.call(value))) value = value();
    return show(await value);
  } catch (e) {
    return `throws ${e?.name ?? show(e)}`;
  }
}
