"""A native QuickJS as a program: `qjs.py FILE.js` runs it in the binding of quickjs-ng, with `print`."""

import sys

import quickjs

context = quickjs.Context()
context.add_callable("print", lambda text: print(text))
with open(sys.argv[1], encoding="utf-8") as file:
    context.eval(file.read())
