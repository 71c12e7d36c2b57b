//! Letters that look like Latin ones.
//!
//! Picked by hand after the data of Unicode Technical Standard #39
//! (`confusables.txt`, Unicode License v3): single characters, in lower case,
//! that pass for one small or capital Latin letter. Fullwidth and mathematical
//! letters are not here: decomposition has made them Latin before.
//!
//! Text that is truly Greek or Cyrillic is changed as well, but in the same way
//! wherever it stands, so a list's entries in these scripts still match.

/// The Latin letter that `ch`, in lower case and decomposed, passes for, or `ch`.
pub(super) fn latin(ch: char) -> char {
    if ch.is_ascii() {
        return ch;
    }
    match ch {
        'а' | 'α' | 'ɑ' | 'ᴀ' | 'ɐ' => 'a',
        'в' | 'β' | 'ʙ' | 'ƀ' | 'ɓ' | 'ь' => 'b',
        'с' | 'ϲ' | 'ᴄ' | 'ƈ' | 'ȼ' => 'c',
        'ԁ' | 'ᴅ' | 'đ' | 'ɖ' | 'ɗ' => 'd',
        'е' | 'ε' | 'є' | 'ᴇ' | 'ɛ' | 'ǝ' | 'ə' | 'ҽ' | 'ɇ' => 'e',
        'ғ' | 'ƒ' | 'ꜰ' => 'f',
        'ɡ' | 'ɢ' | 'ց' | 'ǥ' | 'ɠ' => 'g',
        'һ' | 'н' | 'հ' | 'ʜ' | 'ħ' | 'ɦ' => 'h',
        'і' | 'ι' | 'ɪ' | 'ı' | 'ɩ' | 'ɨ' => 'i',
        'ј' | 'ϳ' | 'ᴊ' | 'ȷ' | 'ɉ' => 'j',
        'к' | 'κ' | 'ᴋ' | 'ƙ' => 'k',
        'ӏ' | 'ʟ' | 'ł' | 'ƚ' | 'ɫ' => 'l',
        'м' | 'ᴍ' | 'ɱ' => 'm',
        'п' | 'η' | 'ո' | 'ɴ' | 'ɲ' | 'ŋ' => 'n',
        'о' | 'ο' | 'σ' | 'ς' | 'օ' | 'ᴏ' | 'ø' | 'ɵ' => 'o',
        'р' | 'ρ' | 'ᴘ' | 'ƥ' => 'p',
        'ԛ' | 'զ' | 'ɋ' => 'q',
        'г' | 'ʀ' | 'ɍ' | 'ɾ' => 'r',
        'ѕ' | 'ꜱ' | 'ʂ' => 's',
        'т' | 'τ' | 'ᴛ' | 'ŧ' | 'ƭ' => 't',
        'υ' | 'μ' | 'ս' | 'ᴜ' | 'ʋ' | 'ʉ' => 'u',
        'ѵ' | 'ν' | 'ᴠ' => 'v',
        'ԝ' | 'ѡ' | 'ω' | 'ᴡ' => 'w',
        'х' | 'χ' => 'x',
        'у' | 'γ' | 'ү' | 'ʏ' | 'ɏ' => 'y',
        'ᴢ' | 'ƶ' | 'ʐ' => 'z',
        '‘' | '’' | '‛' | 'ʼ' | 'ʹ' | '′' => '\'',
        '“' | '”' | '„' | '‟' | '«' | '»' => '"',
        '‐' | '‒' | '–' | '—' | '―' | '−' => '-',
        '∗' | '⁎' | '✱' | '•' => '*',
        '∣' | 'ǀ' => '|',
        _ => enclosed(ch).unwrap_or(ch),
    }
}

/// Two letters in one.
pub(super) fn sharp(ch: char) -> Option<&'static str> {
    Some(match ch {
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        _ => return None,
    })
}

/// Letters in circles and squares that have no decomposition, and the regional
/// indicators that flags are made of.
fn enclosed(ch: char) -> Option<char> {
    let first = match ch {
        '\u{1f150}'..='\u{1f169}' => 0x1f150,
        '\u{1f170}'..='\u{1f189}' => 0x1f170,
        '\u{1f1e6}'..='\u{1f1ff}' => 0x1f1e6,
        _ => return None,
    };
    char::from_u32(u32::from(ch) - first + u32::from('a'))
}
