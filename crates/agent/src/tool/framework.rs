//! Tools that need no sandbox: those of agents with skills, and `ask_question`.

use async_trait::async_trait;
use bowline_model::ToolSpec;
use serde_json::{Value, json};

use super::{Effect, Tool, ToolContext, ToolError, ToolOutput};
use crate::{
    approval::{MAX_CHOICES, Question},
    skill::{self, Skill},
};

/// The name of the tool that asks a person.
pub const ASK_QUESTION: &str = "ask_question";

/// Most lines, and most bytes, of a file of a skill that one call returns.
const MAX_LINES: usize = 2_000;
const MAX_BYTES: usize = 50 * 1024;

/// `activate_skill`: gives the model the instructions of a skill.
pub(crate) struct ActivateSkill {
    spec: ToolSpec,
    skills: Vec<Skill>,
}

impl ActivateSkill {
    pub(crate) fn new(skills: Vec<Skill>) -> Self {
        let spec = ToolSpec {
            name: "activate_skill".to_owned(),
            description: "Read the instructions of a skill before doing the work that it is for."
                .to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {"name": {"type": "string", "description": "Name of the skill, from the list of skills."}},
                "required": ["name"],
            }),
        };
        Self { spec, skills }
    }
}

#[async_trait]
impl Tool for ActivateSkill {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    async fn call(
        &self,
        _context: &ToolContext,
        arguments: Value,
    ) -> Result<ToolOutput, ToolError> {
        let name = arguments["name"].as_str().unwrap_or_default();
        // A wrong name is an answer, not a failure: the model picks another.
        Ok(ToolOutput::text(match skill::find(&self.skills, name) {
            Ok(skill) => skill.activation(),
            Err(text) => text,
        }))
    }
}

/// `read_skill_resource`: gives the model a file of a skill.
pub(crate) struct ReadSkillResource {
    spec: ToolSpec,
    skills: Vec<Skill>,
}

impl ReadSkillResource {
    pub(crate) fn new(skills: Vec<Skill>) -> Self {
        let spec = ToolSpec {
            name: "read_skill_resource".to_owned(),
            description: format!(
                "Read a text file of a skill, at most {MAX_LINES} lines or {} KB at a time.",
                MAX_BYTES / 1024
            ),
            parameters: json!({
                "type": "object",
                "properties": {
                    "path": {"type": "string", "description": "SKILL/FILE, as `activate_skill` lists it."},
                    "offset": {"type": "integer", "minimum": 1, "description": "First line, from 1."},
                    "limit": {"type": "integer", "minimum": 1, "description": "Number of lines."},
                },
                "required": ["path"],
            }),
        };
        Self { spec, skills }
    }
}

#[async_trait]
impl Tool for ReadSkillResource {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    async fn call(
        &self,
        _context: &ToolContext,
        arguments: Value,
    ) -> Result<ToolOutput, ToolError> {
        let path = arguments["path"].as_str().unwrap_or_default();
        let bytes = match skill::read_resource(&self.skills, path) {
            Ok(bytes) => bytes,
            Err(text) => return Ok(ToolOutput::text(text)),
        };
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Err(ToolError::new(format!(
                "{path} is not a text file ({} bytes).",
                bytes.len()
            )));
        };
        let number = |key: &str| {
            arguments[key]
                .as_u64()
                .and_then(|number| usize::try_from(number).ok())
        };
        let first = number("offset").unwrap_or(1).max(1) - 1;
        let limit = number("limit").unwrap_or(MAX_LINES).min(MAX_LINES);
        let total = text.lines().count();
        if first > 0 && first >= total {
            return Err(ToolError::new(format!(
                "Offset {} is beyond end of file ({total} lines total)",
                first + 1
            )));
        }
        let mut shown = String::new();
        let mut lines = 0;
        for line in text.lines().skip(first).take(limit) {
            if shown.len() + line.len() > MAX_BYTES {
                break;
            }
            shown.push_str(line);
            shown.push('\n');
            lines += 1;
        }
        if first + lines < total {
            let (from, to) = (first + 1, first + lines);
            shown.push_str(&format!(
                "\n[Showing lines {from}-{to} of {total}. Use offset={} to continue.]",
                to + 1
            ));
        }
        Ok(ToolOutput::text(shown))
    }
}

/// `ask_question`: lets the model ask a person. An agent has it when its `tools` name it.
pub(crate) struct AskQuestion {
    spec: ToolSpec,
}

impl AskQuestion {
    pub(crate) fn new() -> Self {
        let choice = json!({
            "type": "object",
            "properties": {
                "label": {"type": "string", "minLength": 1, "maxLength": 200, "description": "What is answered when it is chosen."},
                "description": {"type": "string", "maxLength": 1000, "description": "What it means."},
            },
            "required": ["label"],
        });
        let spec = ToolSpec {
            name: ASK_QUESTION.to_owned(),
            description: "Ask the person a question and wait for the answer. It may take long: ask only what you cannot find out yourself, and everything that you need at once.".to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "question": {"type": "string", "minLength": 1, "maxLength": 10000, "description": "The question, with what is needed to answer it."},
                    "choices": {"type": "array", "maxItems": MAX_CHOICES, "items": choice, "description": "The answers to choose from, the best first."},
                    "free_text": {"type": "boolean", "description": "Whether another answer than the choices is allowed. Default: true."},
                },
                "required": ["question"],
            }),
        };
        Self { spec }
    }
}

#[async_trait]
impl Tool for AskQuestion {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    fn asks(&self, arguments: &Value) -> Result<Option<Question>, ToolError> {
        Question::of(arguments).map(Some).map_err(ToolError::new)
    }

    async fn call(&self, _: &ToolContext, _: Value) -> Result<ToolOutput, ToolError> {
        Err(ToolError::new("Nobody was asked."))
    }
}
