//! The part of Go's text/template that people give to `--format`, over JSON values.
//!
//! See <https://pkg.go.dev/text/template> and <https://docs.docker.com/engine/cli/formatting/>.

mod syntax;

use serde_json::{Map, Value};

use syntax::{Expression, Node, Operand};

/// What a template can call.
const FUNCTIONS: [&str; 14] = [
    "json", "join", "split", "upper", "lower", "title", "println", "print", "index", "len", "eq",
    "ne", "not", "truncate",
];

/// Why a template can't be read or filled in.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid template: {problem}")]
pub struct TemplateError {
    problem: String,
    hint: Option<String>,
}

impl TemplateError {
    fn new(problem: impl Into<String>) -> TemplateError {
        TemplateError {
            problem: problem.into(),
            hint: None,
        }
    }

    fn hinted(mut self, hint: impl Into<String>) -> TemplateError {
        self.hint = Some(hint.into());
        self
    }

    /// Returns what there is in place of what was asked for.
    pub fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

type Result<T> = std::result::Result<T, TemplateError>;

/// A template that was read.
#[derive(Debug)]
pub struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, and what there would be.
    pub fn parse(text: &str) -> Result<Template> {
        Ok(Template {
            nodes: syntax::parse(text)?,
        })
    }

    /// Fills it in.
    ///
    /// # Errors
    /// A field that does not exist, or a function that can't take what it was given.
    pub fn render(&self, data: &Value) -> Result<String> {
        let mut out = String::new();
        let mut scope = Scope {
            root: data,
            variables: Vec::new(),
        };
        scope.nodes(&self.nodes, data, &mut out)?;
        Ok(out)
    }
}

struct Scope<'d> {
    root: &'d Value,
    variables: Vec<(String, Value)>,
}

impl Scope<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value, out: &mut String) -> Result<()> {
        for node in nodes {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Print(expression) => out.push_str(&shown(&self.value(expression, dot)?)),
                Node::If {
                    condition,
                    then,
                    otherwise,
                } => {
                    let holds = is_true(&self.value(condition, dot)?);
                    self.nodes(if holds { then } else { otherwise }, dot, out)?;
                }
                Node::With {
                    value,
                    then,
                    otherwise,
                } => {
                    let value = self.value(value, dot)?;
                    match is_true(&value) {
                        true => self.nodes(then, &value, out)?,
                        false => self.nodes(otherwise, dot, out)?,
                    }
                }
                Node::Range {
                    key,
                    element,
                    over,
                    body,
                    otherwise,
                } => {
                    let items: Vec<(Value, Value)> = match self.value(over, dot)? {
                        Value::Array(items) => {
                            let numbered = items.into_iter().enumerate();
                            numbered.map(|(n, item)| (n.into(), item)).collect()
                        }
                        // Go goes through maps in the order of their keys.
                        Value::Object(fields) => sorted(&fields)
                            .map(|(key, value)| (key.clone().into(), value.clone()))
                            .collect(),
                        Value::Null => Vec::new(),
                        other => {
                            return Err(TemplateError::new(format!(
                                "range can't go through {}",
                                shown(&other)
                            )));
                        }
                    };
                    if items.is_empty() {
                        self.nodes(otherwise, dot, out)?;
                    }
                    for (at, item) in items {
                        let outer = self.variables.len();
                        self.variables
                            .extend(key.iter().map(|name| (name.clone(), at.clone())));
                        self.variables
                            .extend(element.iter().map(|name| (name.clone(), item.clone())));
                        self.nodes(body, &item, out)?;
                        self.variables.truncate(outer);
                    }
                }
            }
        }
        Ok(())
    }

    fn value(&self, expression: &Expression, dot: &Value) -> Result<Value> {
        let start = match &expression.operand {
            Operand::Dot => dot.clone(),
            Operand::Variable(name) if name.is_empty() => self.root.clone(),
            Operand::Variable(name) => {
                let found = self.variables.iter().rev().find(|(n, _)| n == name);
                let found = found.map(|(_, value)| value.clone());
                found.ok_or_else(|| TemplateError::new(format!("undefined variable ${name}")))?
            }
            Operand::Literal(value) => value.clone(),
            Operand::Group(inner) => self.value(inner, dot)?,
            Operand::Call(name, arguments) => {
                let arguments: Result<Vec<Value>> = arguments
                    .iter()
                    .map(|argument| self.value(argument, dot))
                    .collect();
                call(name, arguments?)?
            }
        };
        expression.fields.iter().try_fold(start, field)
    }
}

fn sorted(fields: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_by_key(|(key, _)| *key);
    fields.into_iter()
}

fn field(value: Value, name: &String) -> Result<Value> {
    match value {
        Value::Object(mut fields) => match fields.remove(name) {
            Some(found) => Ok(found),
            // Go's fields are capitalised: all else is a key, such as that of a label.
            None if !name.starts_with(|c: char| c.is_ascii_uppercase()) => Ok(Value::Null),
            None => {
                let names: Vec<&str> = sorted(&fields).map(|(key, _)| key.as_str()).collect();
                Err(TemplateError::new(format!("there is no field .{name}"))
                    .hinted(format!("the fields are {}", names.join(", "))))
            }
        },
        Value::Null => Ok(Value::Null),
        other => Err(TemplateError::new(format!(
            "{} has no field .{name}",
            shown(&other)
        ))),
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Returns a value as Go's fmt prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(shown).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = sorted(fields)
                .map(|(key, value)| format!("{key}:{}", shown(value)))
                .collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

fn call(name: &str, arguments: Vec<Value>) -> Result<Value> {
    let wrong = || {
        let given: Vec<String> = arguments.iter().map(Value::to_string).collect();
        TemplateError::new(format!("{name} can't take ({})", given.join(", ")))
    };
    let value = match (name, &arguments[..]) {
        ("json", [value]) => value.to_string().into(),
        ("join", [Value::Array(items), Value::String(between)]) => {
            let items: Vec<String> = items.iter().map(shown).collect();
            items.join(between).into()
        }
        ("join", [Value::Null, Value::String(_)]) => "".into(),
        ("split", [Value::String(text), Value::String(at)]) => {
            text.split(at.as_str()).map(Value::from).collect()
        }
        ("upper", [Value::String(text)]) => text.to_uppercase().into(),
        ("lower", [Value::String(text)]) => text.to_lowercase().into(),
        ("title", [Value::String(text)]) => {
            let mut chars = text.chars();
            let first = chars.next().map(|c| c.to_uppercase().to_string());
            (first.unwrap_or_default() + chars.as_str()).into()
        }
        ("println" | "print", values) => {
            let values: Vec<String> = values.iter().map(shown).collect();
            let end = if name == "println" { "\n" } else { "" };
            (values.join(" ") + end).into()
        }
        ("index", [value, keys @ ..]) => {
            let mut found = value.clone();
            for key in keys {
                found = match (&found, key) {
                    (Value::Array(items), Value::Number(n)) => {
                        let at = n.as_u64().and_then(|n| usize::try_from(n).ok());
                        let item = at.and_then(|at| items.get(at));
                        item.cloned().ok_or_else(|| {
                            let len = items.len();
                            TemplateError::new(format!("index {n} is out of range: {len} items"))
                        })?
                    }
                    (Value::Object(fields), Value::String(key)) => {
                        fields.get(key).cloned().unwrap_or(Value::Null)
                    }
                    (Value::Null, _) => Value::Null,
                    _ => return Err(wrong()),
                };
            }
            found
        }
        ("len", [Value::Array(items)]) => items.len().into(),
        ("len", [Value::Object(fields)]) => fields.len().into(),
        ("len", [Value::String(text)]) => text.len().into(),
        ("len", [Value::Null]) => 0.into(),
        ("eq", [first, others @ ..]) if !others.is_empty() => others.contains(first).into(),
        ("ne", [left, right]) => (left != right).into(),
        ("not", [value]) => (!is_true(value)).into(),
        ("truncate", [Value::String(text), Value::Number(most)]) => {
            let most = most.as_u64().and_then(|n| usize::try_from(n).ok());
            let most = most.unwrap_or(usize::MAX);
            text.chars().take(most).collect::<String>().into()
        }
        _ => return Err(wrong()),
    };
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(template: &str) -> String {
        let data = json!({
            "Id": "sha256:12",
            "Config": {
                "Env": ["A=1", "B=2"], "Labels": {"z": "26", "a.b": "1"}, "Cmd": [], "User": "",
            },
            "Size": 3,
            "Digest": null,
        });
        match Template::parse(template).and_then(|template| template.render(&data)) {
            Ok(text) => text,
            Err(error) => match error.hint() {
                Some(hint) => format!("{error} ({hint})"),
                None => error.to_string(),
            },
        }
    }

    #[test]
    fn values_are_printed_as_go_does() {
        for (template, text) in [
            ("plain", "plain"),
            ("{{.Id}}: {{ .Size }}", "sha256:12: 3"),
            ("{{.Config.Env}}", "[A=1 B=2]"),
            ("{{.Config.Labels}}", "map[a.b:1 z:26]"),
            ("{{.Config.Labels.z}}", "26"),
            ("{{.Config.Labels.none}}", "<no value>"),
            ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
            ("{{.Config.Env | json}}", r#"["A=1","B=2"]"#),
            ("{{json .Config.Labels.none}}", "null"),
            (r#"{{join .Config.Env ", "}}"#, "A=1, B=2"),
            (r#"{{index .Config.Labels "a.b"}}"#, "1"),
            ("{{index .Config.Env 1 | lower | upper}}", "B=2"),
            (r#"{{index (split .Id ":") 1}}"#, "12"),
            ("{{len .Config.Env}}", "2"),
            ("a {{- .Size -}} b", "a3b"),
            ("{{/* nothing */}}x", "x"),
        ] {
            assert_eq!(rendered(template), text, "{template}");
        }
    }

    #[test]
    fn blocks_nest_and_have_variables() {
        for (template, text) in [
            ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
            (
                "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}",
                "a.b=1;z=26;",
            ),
            ("{{range .Config.Cmd}}x{{else}}none{{end}}", "none"),
            ("{{if .Config.User}}u{{else}}root{{end}}", "root"),
            (
                r#"{{if eq .Size 1}}a{{else if eq .Size 3}}b{{else}}c{{end}}"#,
                "b",
            ),
            ("{{with .Config}}{{.User}}{{$.Id}}{{end}}", "sha256:12"),
            (
                "{{range $i, $e := .Config.Env}}{{if $i}},{{end}}{{$e}}{{end}}",
                "A=1,B=2",
            ),
        ] {
            assert_eq!(rendered(template), text, "{template}");
        }
    }

    #[test]
    fn errors_name_what_there_is() {
        for (template, text) in [
            (
                "{{.Nam}}",
                "invalid template: there is no field .Nam (the fields are Config, Digest, Id, Size)",
            ),
            (
                "{{toml .}}",
                "invalid template: there is no function \"toml\" (the functions are json, join, \
                 split, upper, lower, title, println, print, index, len, eq, ne, not, truncate)",
            ),
            (
                "{{.Id",
                "invalid template: {{ is never closed (end it with }})",
            ),
            ("{{range .Id}}", "invalid template: range has no {{end}}"),
            ("{{end}}", "invalid template: unexpected {{end}}"),
            ("{{}}", "invalid template: {{}} holds nothing"),
            ("{{.Id.X}}", "invalid template: sha256:12 has no field .X"),
            (
                "{{index .Config.Env 2}}",
                "invalid template: index 2 is out of range: 2 items",
            ),
            ("{{upper 3}}", "invalid template: upper can't take (3)"),
            ("{{.Id .Size}}", "invalid template: unexpected .Size"),
            ("{{$x}}", "invalid template: undefined variable $x"),
            ("{{\"a}}", "invalid template: a string is never closed"),
        ] {
            assert_eq!(rendered(template), text, "{template}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_not_a_stack_overflow() {
        let blocks = "{{if .Id}}".repeat(100_000);
        assert_eq!(
            rendered(&blocks),
            "invalid template: it is nested too deeply"
        );
        let groups = format!("{{{{{}", "(".repeat(100_000)) + "}}";
        assert_eq!(
            rendered(&groups),
            "invalid template: it is nested too deeply"
        );
    }
}
