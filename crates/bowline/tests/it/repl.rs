//! `bowline code`: the prompt.

use std::{fs, io::Write as _, process::Stdio};

use crate::{
    terminal::{CTRL_C, CTRL_D, Terminal},
    world::{Ran, World},
};

/// The prompt, with these lines for it to read.
pub(crate) fn typed(world: &World, args: &[&str], lines: &str) -> Ran {
    let mut child = world
        .command(&[&["code"][..], args].concat())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(lines.as_bytes()).unwrap();
    drop(input);
    world.ran(child.wait_with_output().unwrap())
}

/// What is shown of each line is in the snapshot.
const LINES: &str = r#"1 + 2
const twice = (n: number): number => n * 2
twice(21)
interface Person { name: string }
const people: Person[] = [
  { name: "Ada" },
  { name: "Bob" },
]
for (const { name } of people) {
  console.log("hello", name);
}
fact(20)
function fact(n: number): number {
  return n < 2 ? 1 : n * fact(n - 1);
}
fact(20)
class Counter { #n = 0; up() { return ++this.#n } }
const c = new Counter()
c.up(); c.up()
const c = "again"
c
let { a, b: [x, ...rest] } = { a: 1, b: [2, 3, 4] }, unset
[a, x, rest, unset]
await new Promise((done) => setTimeout(() => done("later"), 5))
_
{ a, x }
{ let inner = 1; }
typeof inner
twice
new Map([[1, { deep: [1, [2, [3]]] }]])
enum Color { Red, Green }
Color.Green
let y =
  3
`one
${y}
two`
/* a
comment */ 4
'not closed
setTimeout(() => console.log("fired"), 0); undefined
await new Promise((done) => setTimeout(done, 1))
throw new RangeError("no")
missing
typo = 1
1 +* 2
import x from "./x"
for (;;) {}
await new Promise(() => {})
y // is still there
"text"
.types nothing
.what
"#;

#[test]
fn lines_are_run_one_after_the_other_and_what_they_declare_stays() {
    let world = World::empty();
    let ran = typed(&world, &["--cpu", "1"], LINES);
    assert_eq!(ran.status, 1, "some lines failed");
    insta::assert_snapshot!(ran.all());
}

#[test]
fn files_are_written_back_after_each_line_that_came_to_its_end() {
    let world = World::empty();
    world.write("data/in.txt", "one");
    world.write("data/gone.txt", "");
    let ran = typed(
        &world,
        &["repl", "--workspace", "data", "--cpu", "1"],
        "const text = await state.readFile('in.txt')\n\
         await state.writeFile('out.txt', text + ' two'); await state.rm('gone.txt')\n\
         await state.writeFile('in.txt', 'lost'); for (;;) {}\n\
         await state.readFile('in.txt')\n\
         .types state\n",
    );
    assert!(ran.stdout.starts_with("'one'\n"), "{}", ran.all());
    assert!(
        ran.stdout.contains("declare const state: {"),
        "{}",
        ran.all()
    );
    let read = |name: &str| fs::read_to_string(world.path().join("data").join(name));
    assert_eq!(read("out.txt").unwrap(), "one two");
    assert_eq!(read("in.txt").unwrap(), "one");
    assert!(read("gone.txt").is_err());
}

#[test]
fn json_has_a_line_for_each() {
    let world = World::empty();
    let ran = typed(
        &world,
        &["--json"],
        "({ n: 1 })\nlet z = 2\n(x) => x\nthrow 5\n({\n",
    );
    let lines = ran.lines();
    let results: Vec<_> = lines
        .iter()
        .map(|line| line["result"].to_string())
        .collect();
    assert_eq!(results, [r#"{"n":1}"#, "null", "null", "null", "null"]);
    assert_eq!(lines[2]["shown"], "[Function (anonymous)]");
    assert_eq!(lines[3]["error"]["type"], "code_threw");
    assert_eq!(lines[4]["error"]["type"], "isolate_syntax");
    assert_eq!(ran.status, 1);
}

#[test]
fn on_a_terminal_ctrl_c_stops_a_line_and_ctrl_d_leaves() {
    let world = World::empty();
    let Some(mut terminal) = Terminal::start(&world, "code --cpu 100") else {
        return;
    };
    terminal.until("ctrl-D leaves");
    terminal.until("> ");
    terminal.press("const kept = [\r");
    terminal.press("7]\r");
    terminal.until("7]");
    terminal.until("> ");
    let waits = "setTimeout(() => { for (;;) {} }, 1); console.log('be' + 'gan'); await new Promise(() => {})\r";
    terminal.press(waits);
    terminal.until("began\r\n");
    terminal.press(CTRL_C);
    terminal.until("stopped");
    terminal.until("> ");
    terminal.press("kept[0] * 6\r");
    terminal.until("42");
    terminal.until("> ");
    terminal.press(CTRL_D);
    let (shown, code) = terminal.end();
    assert_eq!(code, 0, "{shown}");
}
