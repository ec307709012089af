//! What a program can reach: namespaces of functions that the host answers.

use std::sync::{Arc, OnceLock};

use super::wire::Writer;

/// The namespaces of a program. Names are resolved when they are used, so that many cost little. Cheap to
/// clone.
#[derive(Clone, Debug, Default)]
pub struct Bindings(Arc<Spaces>);

#[derive(Clone, Debug, Default)]
struct Spaces {
    /// Name, and method names separated by newlines.
    spaces: Vec<(String, String)>,
    hash: OnceLock<[u8; 32]>,
}

/// A name cannot be bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// It is no identifier of JavaScript, or one that the language or the engine uses.
    #[error(
        "`{0}` cannot be the name of a binding; use letters, digits and `_`, and no name of JavaScript"
    )]
    Name(String),
    /// Two namespaces have it.
    #[error("there are two bindings named `{0}`; rename one")]
    Twice(String),
    /// A method's name is empty, longer than 256 bytes or has control characters.
    #[error("the binding `{0}` has a method with an impossible name; rename it")]
    Method(String),
    /// More names than fit.
    #[error("the names of all bindings together have more than {0} bytes; bind fewer")]
    TooMany(usize),
}

impl BindingError {
    /// The stable type that users see.
    pub fn code(&self) -> &'static str {
        "isolate_binding"
    }
}

/// Words of the language that cannot name a variable or a parameter.
const RESERVED: &[&str] = &[
    "arguments",
    "await",
    "break",
    "case",
    "catch",
    "class",
    "const",
    "continue",
    "debugger",
    "default",
    "delete",
    "do",
    "else",
    "enum",
    "eval",
    "export",
    "extends",
    "false",
    "finally",
    "for",
    "function",
    "if",
    "implements",
    "import",
    "in",
    "instanceof",
    "interface",
    "let",
    "new",
    "null",
    "package",
    "private",
    "protected",
    "public",
    "return",
    "static",
    "super",
    "switch",
    "this",
    "throw",
    "true",
    "try",
    "typeof",
    "var",
    "void",
    "while",
    "with",
    "yield",
];

/// Other names that cannot be a binding's: globals that code needs.
const TAKEN: &[&str] = &[
    "async",
    "globalThis",
    "global",
    "undefined",
    "NaN",
    "Infinity",
    "Object",
    "Function",
    "Array",
    "Number",
    "Boolean",
    "String",
    "Symbol",
    "Date",
    "Promise",
    "RegExp",
    "Error",
    "AggregateError",
    "EvalError",
    "RangeError",
    "ReferenceError",
    "SyntaxError",
    "TypeError",
    "URIError",
    "InternalError",
    "JSON",
    "Math",
    "ArrayBuffer",
    "Uint8Array",
    "Int8Array",
    "Uint16Array",
    "Int16Array",
    "Uint32Array",
    "Int32Array",
    "Float16Array",
    "Float32Array",
    "Float64Array",
    "Uint8ClampedArray",
    "BigUint64Array",
    "BigInt64Array",
    "DataView",
    "Map",
    "BigInt",
    "Set",
    "WeakMap",
    "WeakSet",
    "WeakRef",
    "FinalizationRegistry",
    "Proxy",
    "Reflect",
    "Iterator",
    "console",
    "crypto",
    "performance",
    "setTimeout",
    "setInterval",
    "setImmediate",
    "clearTimeout",
    "clearInterval",
    "clearImmediate",
    "queueMicrotask",
    "structuredClone",
    "atob",
    "btoa",
    "URL",
    "URLSearchParams",
    "TextEncoder",
    "TextDecoder",
    "Event",
    "EventTarget",
    "CustomEvent",
    "AbortController",
    "AbortSignal",
    "DOMException",
    "parseInt",
    "parseFloat",
    "isNaN",
    "isFinite",
    "decodeURI",
    "decodeURIComponent",
    "encodeURI",
    "encodeURIComponent",
    "escape",
    "unescape",
    "DisposableStack",
    "AsyncDisposableStack",
    "SuppressedError",
];

/// Whether a name is a word of JavaScript (in a module, so strictly), which no variable and no parameter
/// can have.
pub fn is_reserved_word(name: &str) -> bool {
    RESERVED.contains(&name)
}

impl Bindings {
    /// All names together, in bytes.
    pub const MAX_BYTES: usize = 1 << 20;

    /// None.
    pub fn none() -> Self {
        Self::default()
    }

    /// With one more namespace.
    ///
    /// # Errors
    /// [`BindingError`] when a name cannot be used.
    pub fn with<S: AsRef<str>>(
        self,
        namespace: &str,
        methods: impl IntoIterator<Item = S>,
    ) -> Result<Self, BindingError> {
        let mut bytes = namespace.bytes();
        let first = bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b'$');
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$');
        if !first
            || !rest
            || namespace.len() > 64
            || is_reserved_word(namespace)
            || TAKEN.contains(&namespace)
        {
            return Err(BindingError::Name(namespace.to_owned()));
        }
        if self.0.spaces.iter().any(|(name, _)| name == namespace) {
            return Err(BindingError::Twice(namespace.to_owned()));
        }
        let mut names = String::new();
        for method in methods {
            let method = method.as_ref();
            if method.is_empty() || method.len() > 256 || method.chars().any(char::is_control) {
                return Err(BindingError::Method(namespace.to_owned()));
            }
            if !names.is_empty() {
                names.push('\n');
            }
            names.push_str(method);
        }
        let mut spaces = self.0.spaces.clone();
        spaces.push((namespace.to_owned(), names));
        if spaces.iter().map(|(n, m)| n.len() + m.len()).sum::<usize>() > Self::MAX_BYTES {
            return Err(BindingError::TooMany(Self::MAX_BYTES));
        }
        Ok(Self(Arc::new(Spaces {
            spaces,
            hash: OnceLock::new(),
        })))
    }

    /// Whether the namespace has this method. The host's side of an isolate checks each call with it,
    /// whatever the guest let pass.
    pub fn allow(&self, namespace: &str, method: &str) -> bool {
        self.0.spaces.iter().any(|(name, methods)| {
            name == namespace && methods.split('\n').any(|m| m == method && !m.is_empty())
        })
    }

    /// The identity of the set: a saved program can be restored only with the same.
    pub fn hash(&self) -> [u8; 32] {
        *self.0.hash.get_or_init(|| {
            let mut out = Writer::default();
            self.write(&mut out);
            *blake3::hash(&out.bytes).as_bytes()
        })
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.number(self.0.spaces.len() as u64);
        for (name, methods) in &self.0.spaces {
            out.text(name.as_bytes());
            out.text(methods.as_bytes());
        }
    }
}
