//! `bowline code`: the prompt.

use std::{
    fs,
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
};

use crate::world::{Ran, World};

/// The prompt, with these lines for it to read.
fn typed(world: &World, args: &[&str], lines: &str) -> Ran {
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

/// A terminal with the prompt in it.
struct Screen {
    child: Child,
    seen: String,
}

impl Screen {
    fn open(world: &World, command: &str) -> Option<Self> {
        let binary = env!("CARGO_BIN_EXE_bowline");
        // The shell tells how the command ended, for `script` has an exit code of its own.
        let command = format!("trap : INT; {binary} {command}; echo \"ended with $?\"");
        let child = Command::new("script")
            .args(["-qfc", &command, "/dev/null"])
            .current_dir(world.path())
            .env("TERM", "xterm")
            .env("XDG_CACHE_HOME", world.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        Some(Self {
            child,
            seen: String::new(),
        })
    }

    fn send(&mut self, keys: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(keys.as_bytes()).unwrap();
        input.flush().unwrap();
    }

    /// Reads until this is on the screen, and forgets what was before.
    fn wait(&mut self, text: &str) -> String {
        let output = self.child.stdout.as_mut().unwrap();
        let mut bytes = [0; 4096];
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let read = output.read(&mut bytes).unwrap();
            assert!(read > 0, "it ended before {text:?}: {:?}", self.seen);
            self.seen += &String::from_utf8_lossy(&bytes[..read]);
        }
    }
}

#[test]
fn on_a_terminal_ctrl_c_stops_a_line_and_ctrl_d_leaves() {
    let world = World::empty();
    let Some(mut screen) = Screen::open(&world, "code --cpu 100") else {
        eprintln!("SKIPPED: there is no `script` to make a terminal with");
        return;
    };
    screen.wait("ctrl-D leaves");
    screen.wait("> ");
    screen.send("const kept = [\r");
    screen.send("7]\r");
    screen.wait("7]");
    screen.wait("> ");
    let waits = "setTimeout(() => { for (;;) {} }, 1); console.log('be' + 'gan'); await new Promise(() => {})\r";
    screen.send(waits);
    screen.wait("began\r\n");
    screen.send("\x03");
    screen.wait("stopped");
    screen.wait("> ");
    screen.send("kept[0] * 6\r");
    screen.wait("42");
    screen.wait("> ");
    screen.send("\x04");
    screen.wait("ended with 0\r\n");
    screen.child.wait().unwrap();
}
