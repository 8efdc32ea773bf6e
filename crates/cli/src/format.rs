//! `--format`: Go templates as far as fields and `json` go; what goes beyond is refused by name.

use serde_json::Value;

use crate::error::Error;

/// A parsed `--format`.
#[derive(Debug, PartialEq, Eq)]
pub struct Format(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// `{{.A.B}}`: a value as text.
    Plain(Vec<String>),
    /// `{{json .A.B}}`.
    Json(Vec<String>),
}

impl Format {
    /// Reads `json` or a template.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text == "json" {
            return Ok(Self(vec![Part::Json(Vec::new())]));
        }
        if text == "table" || text.starts_with("table ") {
            return Err(refused("table", "tables of chosen columns are not made"));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = after.split_once("}}").ok_or_else(|| refused(after, "it has no end"))?;
            parts.push(Part::Text(unescape(before)));
            parts.push(action_of(action.trim())?);
            rest = after;
        }
        parts.push(Part::Text(unescape(rest)));
        Ok(Self(parts))
    }

    /// Fills the template in.
    pub fn of(&self, value: &Value) -> Result<String, Error> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Json(path) => out.push_str(&field(value, path)?.to_string()),
                Part::Plain(path) => match field(value, path)? {
                    Value::String(text) => out.push_str(text),
                    Value::Null => out.push_str("<no value>"),
                    Value::Array(_) | Value::Object(_) => {
                        let path = path.join(".");
                        return Err(refused(
                            &format!(".{path}"),
                            &format!("it is no single value: {{{{json .{path}}}}}"),
                        ));
                    }
                    other => out.push_str(&other.to_string()),
                },
            }
        }
        Ok(out)
    }
}

fn action_of(action: &str) -> Result<Part, Error> {
    let (is_json, operand) = match action.strip_prefix("json ") {
        Some(operand) => (true, operand.trim()),
        None => (false, action),
    };
    let path = operand.strip_prefix('.').ok_or_else(|| refused(action, "only fields are known"))?;
    let path: Vec<String> = path.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let word = |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match (path.iter().all(word), is_json, path.is_empty()) {
        (false, ..) => Err(refused(action, "only fields are known")),
        (true, true, _) => Ok(Part::Json(path)),
        (true, false, false) => Ok(Part::Plain(path)),
        (true, false, true) => Err(refused(action, "it is no single value: {{json .}}")),
    }
}

fn field<'a>(value: &'a Value, path: &[String]) -> Result<&'a Value, Error> {
    path.iter().try_fold(value, |value, name| {
        value.get(name).ok_or_else(|| {
            let names: Vec<&str> = value.as_object().into_iter().flatten().map(|(name, _)| &**name).collect();
            refused(
                &format!(".{}", path.join(".")),
                &format!("there is no {name}, only: {}", names.join(", ")),
            )
        })
    })
}

/// Shells hand `\t` and `\n` on as they are typed.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn refused(action: &str, reason: &str) -> Error {
    Error::new(
        format!("cannot use \"{action}\" in --format"),
        Some(reason.to_owned()),
        Some("accepted are json, {{.Field}}, {{.Field.Field}}, {{json .}} and {{json .Field}}".to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_filled_in_and_all_else_is_refused() {
        let value = serde_json::json!({"A": {"B": "x", "N": 3, "L": [1]}, "Z": null});
        let of = |text: &str| Format::parse(text).and_then(|format| format.of(&value)).ok();
        assert_eq!(of("{{.A.B}}-{{ .A.N }}\\t{{json .A.L}}").as_deref(), Some("x-3\t[1]"));
        assert_eq!(of("json"), Some(value.to_string()));
        assert_eq!(of("{{json .}}"), Some(value.to_string()));
        for bad in
            ["{{.}}", "{{.A}}", "{{.X}}", "{{range .A}}", "{{.A", "{{.A | upper}}", "{{}}", "table {{.A.B}}"]
        {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
