//! Templates as text, read into nodes.

use serde_json::Value;

use super::{FUNCTIONS, Result, TemplateError};

/// No template that a person writes is nested deeper.
const DEPTH: usize = 50;

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Print(Expression),
    If {
        condition: Expression,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        value: Expression,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        key: Option<String>,
        element: Option<String>,
        over: Expression,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

/// A value and the fields that lead on from it.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) operand: Operand,
    pub(super) fields: Vec<String>,
}

#[derive(Debug)]
pub(super) enum Operand {
    Dot,
    /// Without a name, what the template began with.
    Variable(String),
    Literal(Value),
    Group(Box<Expression>),
    Call(String, Vec<Expression>),
}

enum Piece<'t> {
    Text(&'t str),
    Action(&'t str),
}

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>> {
    let mut pieces = pieces(text)?.into_iter();
    let (nodes, end) = block(&mut pieces, 0)?;
    match end {
        None => Ok(nodes),
        Some(end) => Err(TemplateError::new(format!("unexpected {{{{{end}}}}}"))),
    }
}

/// Takes a template apart into text and actions, and carries the trimming out.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    loop {
        let (before, action) = match rest.split_once("{{") {
            None => (rest, None),
            Some((before, action)) => (before, Some(action)),
        };
        let before = if trim { before.trim_start() } else { before };
        let Some(action) = action else {
            pieces.push(Piece::Text(before));
            return Ok(pieces);
        };
        let (inner, after) = action
            .split_once("}}")
            .ok_or_else(|| TemplateError::new("{{ is never closed").hinted("end it with }}"))?;
        let (inner, before) = match inner.strip_prefix("- ") {
            Some(inner) => (inner, before.trim_end()),
            None => (inner, before),
        };
        trim = inner.ends_with(" -");
        let inner = inner.strip_suffix(" -").unwrap_or(inner).trim();
        pieces.push(Piece::Text(before));
        if !(inner.starts_with("/*") && inner.ends_with("*/")) {
            pieces.push(Piece::Action(inner));
        }
        rest = after;
    }
}

/// Reads nodes up to an `end` or `else`, which is returned.
fn block<'t>(
    pieces: &mut impl Iterator<Item = Piece<'t>>,
    depth: usize,
) -> Result<(Vec<Node>, Option<&'t str>)> {
    if depth > DEPTH {
        return Err(TemplateError::new("it is nested too deeply"));
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let action = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text.to_owned()));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, rest) = action
            .split_once(char::is_whitespace)
            .unwrap_or((action, ""));
        match word {
            "end" | "else" => return Ok((nodes, Some(action))),
            "if" | "with" | "range" => nodes.push(opened(word, rest, pieces, depth + 1)?),
            _ => nodes.push(Node::Print(pipeline(action)?)),
        }
    }
    Ok((nodes, None))
}

fn opened<'t>(
    word: &str,
    rest: &str,
    pieces: &mut impl Iterator<Item = Piece<'t>>,
    depth: usize,
) -> Result<Node> {
    let unended = || TemplateError::new(format!("{word} has no {{{{end}}}}"));
    let (mut key, mut element, mut rest) = (None, None, rest);
    if word == "range"
        && let Some((names, over)) = rest.split_once(":=")
    {
        let mut names: Vec<String> = names
            .split(',')
            .map(|name| name.trim().trim_start_matches('$').to_owned())
            .collect();
        element = names.pop();
        key = names.pop();
        rest = over;
    }
    let head = pipeline(rest)?;
    let (then, end) = block(pieces, depth)?;
    let otherwise = match end.ok_or_else(unended)?.strip_prefix("else") {
        None => Vec::new(),
        Some(next) => match next.trim().strip_prefix("if ") {
            // It has the same end.
            Some(condition) => vec![opened("if", condition, pieces, depth + 1)?],
            None => {
                let (otherwise, end) = block(pieces, depth)?;
                if end != Some("end") {
                    return Err(unended());
                }
                otherwise
            }
        },
    };
    Ok(match word {
        "if" => Node::If {
            condition: head,
            then,
            otherwise,
        },
        "with" => Node::With {
            value: head,
            then,
            otherwise,
        },
        _ => Node::Range {
            key,
            element,
            over: head,
            body: then,
            otherwise,
        },
    })
}

fn pipeline(text: &str) -> Result<Expression> {
    let mut rest = text;
    let expression = piped(&mut rest, 0)?;
    match rest.trim() {
        "" => Ok(expression),
        rest => Err(TemplateError::new(format!("unexpected {rest}"))),
    }
}

/// Reads `value | function argument | …`: each takes what came before as its last argument.
fn piped(rest: &mut &str, depth: usize) -> Result<Expression> {
    if depth > DEPTH {
        return Err(TemplateError::new("it is nested too deeply"));
    }
    let mut value = command(rest, depth)?;
    while let Some(next) = rest.trim_start().strip_prefix('|') {
        *rest = next;
        let mut next = command(rest, depth)?;
        match &mut next.operand {
            Operand::Call(_, arguments) => arguments.push(value),
            _ => return Err(TemplateError::new("what follows | is no function")),
        }
        value = next;
    }
    Ok(value)
}

/// Reads a value, or a function with its arguments.
fn command(rest: &mut &str, depth: usize) -> Result<Expression> {
    let mut first =
        operand(rest, depth)?.ok_or_else(|| TemplateError::new("{{}} holds nothing"))?;
    if let Operand::Call(_, arguments) = &mut first.operand {
        while let Some(argument) = operand(rest, depth)? {
            arguments.push(argument);
        }
    }
    Ok(first)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Takes a word off the beginning; it may be empty.
fn word<'t>(rest: &mut &'t str) -> &'t str {
    let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    word
}

fn operand(rest: &mut &str, depth: usize) -> Result<Option<Expression>> {
    *rest = rest.trim_start();
    let operand = match rest.chars().next() {
        None | Some('|' | ')') => return Ok(None),
        Some('(') => {
            *rest = &rest[1..];
            let inner = piped(rest, depth + 1)?;
            *rest = rest
                .trim_start()
                .strip_prefix(')')
                .ok_or_else(|| TemplateError::new("( is never closed"))?;
            Operand::Group(Box::new(inner))
        }
        Some('.') => Operand::Dot,
        Some('$') => {
            *rest = &rest[1..];
            Operand::Variable(word(rest).to_owned())
        }
        Some('"' | '`') => Operand::Literal(string(rest)?.into()),
        Some(c) if c.is_ascii_digit() || c == '-' => {
            let end = rest
                .find(|c: char| !c.is_ascii_digit() && c != '-')
                .unwrap_or(rest.len());
            let (number, after) = rest.split_at(end);
            *rest = after;
            let number: i64 = number
                .parse()
                .map_err(|_| TemplateError::new(format!("{number} is no number")))?;
            Operand::Literal(number.into())
        }
        Some(c) if is_word(c) => match word(rest) {
            "true" => Operand::Literal(true.into()),
            "false" => Operand::Literal(false.into()),
            "nil" => Operand::Literal(Value::Null),
            name if FUNCTIONS.contains(&name) => Operand::Call(name.to_owned(), Vec::new()),
            name => {
                let functions = FUNCTIONS.join(", ");
                return Err(TemplateError::new(format!("there is no function {name:?}"))
                    .hinted(format!("the functions are {functions}")));
            }
        },
        Some(c) => return Err(TemplateError::new(format!("unexpected {c}"))),
    };
    let mut fields = Vec::new();
    while let Some(after) = rest.strip_prefix('.') {
        *rest = after;
        match word(rest) {
            "" => break,
            name => fields.push(name.to_owned()),
        }
    }
    Ok(Some(Expression { operand, fields }))
}

/// Reads a string: in quotes, with escapes, or in backquotes, without.
fn string(rest: &mut &str) -> Result<String> {
    let quote = rest.chars().next().unwrap_or('"');
    let mut text = String::new();
    let mut chars = rest[1..].char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => {
                *rest = &rest[1 + at + 1..];
                return Ok(text);
            }
            '\\' if quote == '"' => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, other)) => text.push(other),
                None => break,
            },
            c => text.push(c),
        }
    }
    Err(TemplateError::new("a string is never closed"))
}
