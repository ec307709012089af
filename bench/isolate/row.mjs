// Runs `once` that many times, some at a time, and prints one row.
export async function row(what, runs, many, once) {
  const times = [], begin = performance.now();
  let left = runs;
  const worker = async () => { while (left-- > 0) times.push(await once()); };
  await Promise.all(Array.from({ length: many }, worker));
  const seconds = (performance.now() - begin) / 1e3;
  times.sort((a, b) => a - b);
  const at = (part) => times[Math.floor((times.length * part) / 100)].toFixed(3).padStart(12);
  console.log(`${what.padEnd(58)} ${at(50)} ${at(99)} ms, ${(times.length / seconds).toFixed(0)} 1/s`);
}
