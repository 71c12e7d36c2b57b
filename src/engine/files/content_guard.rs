//! Keeps what messages say apart from what the template says.
//!
//! A message that contains the text of a control token gets a guard character put inside that text before rendering.
//! The guard is a private-use character found in none of the messages, so it can be told apart and taken out without
//! loss. A message that begins or ends with a piece of a control token is guarded at that edge too, or it could
//! complete one together with the markup next to it. The edge is where the words begin: templates trim white space.

use super::template::{ChatMessage, TemplateError};

#[derive(Debug)]
pub(crate) struct ContentGuard {
    special_texts: Vec<String>,
}

pub(crate) struct Guarded {
    /// `None`: nothing needed guarding, use the messages as they are.
    pub(crate) messages: Option<Vec<ChatMessage>>,
    pub(crate) guard: Option<char>,
}

impl ContentGuard {
    pub(crate) fn new(special_texts: &[String]) -> Self {
        Self { special_texts: special_texts.to_vec() }
    }

    pub(crate) fn protect(&self, messages: &[ChatMessage], template: &str) -> Result<Guarded, TemplateError> {
        let places: Vec<Vec<usize>> = messages.iter().map(|message| self.places(&message.content)).collect();
        if places.iter().all(Vec::is_empty) {
            return Ok(Guarded { messages: None, guard: None });
        }
        let guard = unused_character(messages, template).ok_or(TemplateError::Unencodable)?;
        let guarded = messages.iter().zip(&places).map(|(message, places)| ChatMessage {
            role: message.role.clone(),
            content: with_guards(&message.content, places, guard),
        });
        Ok(Guarded { messages: Some(guarded.collect()), guard: Some(guard) })
    }

    /// Byte positions at which a guard belongs, ascending.
    fn places(&self, content: &str) -> Vec<usize> {
        let mut places = Vec::new();
        for special in &self.special_texts {
            let first = special.chars().next().map_or(0, char::len_utf8);
            let mut from = 0;
            // Not `match_indices`: occurrences may overlap, and each needs its guard.
            while let Some(found) = content[from..].find(special.as_str()) {
                places.push(from + found + first);
                from += found + first;
            }
        }
        let begin = content.len() - content.trim_start().len();
        let end = content.trim_end().len();
        for special in &self.special_texts {
            for (cut, _) in special.char_indices().skip(1) {
                let (head, tail) = special.split_at(cut);
                for edge in [begin, 0] {
                    if content[edge..].starts_with(tail) {
                        places.push(edge);
                    }
                }
                for edge in [end, content.len()] {
                    if content[..edge].ends_with(head) {
                        places.push(edge);
                    }
                }
            }
        }
        places.sort_unstable();
        places.dedup();
        places
    }
}

fn with_guards(content: &str, places: &[usize], guard: char) -> String {
    let mut guarded = String::with_capacity(content.len() + places.len() * guard.len_utf8());
    let mut done = 0;
    for place in places {
        guarded.push_str(&content[done..*place]);
        guarded.push(guard);
        done = *place;
    }
    guarded.push_str(&content[done..]);
    guarded
}

fn unused_character(messages: &[ChatMessage], template: &str) -> Option<char> {
    let used: std::collections::HashSet<char> = messages
        .iter()
        .flat_map(|message| message.content.chars())
        .chain(template.chars())
        .filter(|character| *character >= FIRST_PRIVATE)
        .collect();
    (FIRST_PRIVATE..='\u{10FFFD}').find(|character| !used.contains(character))
}

/// Plane 16: private use only, and used by nobody for text.
const FIRST_PRIVATE: char = '\u{100000}';

#[cfg(test)]
mod tests {
    use super::*;

    fn places(content: &str) -> Vec<usize> {
        ContentGuard::new(&["<|im_start|>".to_owned(), "<s>".to_owned()]).places(content)
    }

    #[test]
    fn ordinary_text_needs_no_guard() {
        assert!(places("a < b, a|b, x > y, im_start").is_empty());
        assert!(places("").is_empty());
        assert!(places("🦀\n").is_empty());
    }

    #[test]
    fn a_spelled_control_token_is_broken_wherever_it_stands() {
        assert_eq!(places("a<|im_start|>b<s>"), [2, 15]);
        assert_eq!(places("<<s>s>"), [2], "only one of them is whole");
    }

    #[test]
    fn half_a_control_token_at_an_edge_is_cut_off_from_the_markup() {
        assert_eq!(places("see <|im_ \n"), [9]);
        assert_eq!(places(" start|> of"), [1]);
        assert_eq!(places(">"), [0]);
    }

    #[test]
    fn the_guard_is_a_character_nobody_used() {
        let message = ChatMessage { role: "user".to_owned(), content: "\u{100000}\u{100001}<s>".to_owned() };
        let guarded = ContentGuard::new(&["<s>".to_owned()]).protect(&[message], "").unwrap();
        assert_eq!(guarded.guard, Some('\u{100002}'));
        assert_eq!(guarded.messages.unwrap()[0].content, "\u{100000}\u{100001}<\u{100002}s>");
    }
}
