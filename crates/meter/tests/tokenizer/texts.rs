//! Seeded texts: soups of every character class, natural-looking documents, and the shapes that break tokenizers.
#![allow(clippy::indexing_slicing, reason = "indexes are drawn below the length")]

/// SplitMix64: a fixed sequence per seed.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn scalar(&mut self, from: u32, to: u32) -> char {
        char::from_u32(from + self.below((to - from) as usize) as u32).unwrap_or('\u{fffd}')
    }
}

const FRAGMENTS: &[&str] = &[
    "'s",
    "'S",
    "'t",
    "'re",
    "'RE",
    "'ve",
    "'m",
    "'ll",
    "'lL",
    "'d",
    "'\u{17f}",
    "'x",
    "''",
    "n't",
    "I'M",
    "\u{17f}",
    "\u{212a}",
    " ",
    "  ",
    "   ",
    "\n",
    "\r\n",
    "\n\n",
    "\t",
    " \n",
    "\n ",
    "\r",
    "\u{a0}",
    "\u{3000}",
    "\u{2028}",
    "\u{85}",
    "\u{b}",
    "\u{200b}",
    "\u{feff}",
    "\0",
    "/",
    "//",
    "/\n",
    "!/",
    "---",
    "===",
    "...",
    "!?",
    "{\"",
    "\":",
    "\\n",
    "1",
    "12",
    "123",
    "1234",
    "\u{661}\u{662}",
    "\u{2160}",
    "\u{bd}",
    "\u{1d7d8}",
    "\u{301}",
    "\u{301}\u{302}",
    "e\u{301}",
    "\u{939}\u{93f}\u{902}",
    "\u{e01}\u{e49}",
    "\u{1f600}",
    "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
    "\u{1f44d}\u{1f3fd}",
    "\u{1f1e9}\u{1f1ea}",
    "\u{2764}\u{fe0f}",
    "\u{1c5}",
    "\u{2b0}",
    "\u{aa}",
    "HTTPServer",
    "iPhone",
    "XML",
    "Aa",
    "aA",
    "ABCdef",
    "\u{416}\u{438}",
    "\u{3a3}\u{3c3}",
    "<|endoftext|>",
    "<|im_start|>",
    "你好",
    "世界。",
    "，",
    "東京タワー",
    "こんにちは",
    "안녕하세요",
    "的",
    "the",
    " the",
    " of",
    "function",
    "return",
    "://",
    "->",
    "\u{10ffff}",
];

/// About `length` bytes of everything, in short runs.
pub fn soup(rng: &mut Rng, length: usize) -> String {
    let mut text = String::new();
    // A few kinds per text, so that runs of one kind and their borders both occur.
    let kinds: Vec<usize> = (0..1 + rng.below(4)).map(|_| rng.below(16)).collect();
    while text.len() < length {
        for _ in 0..1 + rng.below(4) {
            match rng.pick(&kinds) {
                0 => text.push(rng.scalar(0x20, 0x7F)),
                1 => text.push(rng.scalar('a' as u32, 'z' as u32 + 1)),
                2 => text.push(rng.scalar('A' as u32, 'Z' as u32 + 1)),
                3 => text.push(rng.scalar(0x4E00, 0x9FFF)),
                4 => text.push(rng.scalar(0x80, 0x250)),
                5 => text.push(rng.scalar(0x370, 0x1200)),
                6 => text.push(rng.scalar(0x2000, 0x3100)),
                7 => text.push(rng.scalar(0x1F300, 0x1FA00)),
                8 => text.push(rng.scalar(0x1_0000, 0x11_0000)),
                9 => text.push(rng.scalar(0xAC00, 0xD7A4)),
                10 => text.push(rng.pick(&[' ', ' ', '\n', '\r', '\t', '\u{a0}', '\u{2009}', '\u{3000}'])),
                _ => text.push_str(rng.pick(FRAGMENTS)),
            }
        }
    }
    text
}

const SYLLABLES: &[&str] = &[
    "the", "of", "and", "to", "in", "er", "re", "on", "an", "ti", "es", "or", "te", "ed", "is", "it", "al",
    "ar", "st", "nt", "ing", "ion", "ment", "able", "pre", "con", "ly", "ness", "un", "ma", "lo", "vi",
    "ser", "qu", "ck", "th", "sh", "gr",
];
const WORDS: &[&str] = &[
    "the",
    "of",
    "and",
    "a",
    "to",
    "in",
    "is",
    "you",
    "that",
    "it",
    "he",
    "was",
    "for",
    "on",
    "are",
    "as",
    "with",
    "his",
    "they",
    "I",
    "at",
    "be",
    "this",
    "have",
    "from",
    "or",
    "one",
    "had",
    "by",
    "word",
    "but",
    "not",
    "what",
    "all",
    "were",
    "we",
    "when",
    "your",
    "can",
    "said",
    "there",
    "use",
    "each",
    "which",
    "she",
    "do",
    "how",
    "their",
    "if",
    "will",
    "gateway",
    "request",
    "tokens",
    "limit",
    "window",
    "channel",
    "model",
    "provider",
    "system",
    "configuration",
    "performance",
    "different",
    "number",
    "people",
    "water",
    "through",
    "sentence",
    "important",
    "because",
    "between",
    "language",
    "understand",
    "international",
    "development",
    "government",
    "information",
    "available",
    "following",
];
const CJK: &[&str] = &[
    "的",
    "一",
    "是",
    "不",
    "了",
    "人",
    "我",
    "在",
    "有",
    "他",
    "这",
    "为",
    "之",
    "大",
    "来",
    "以",
    "个",
    "中",
    "上",
    "们",
    "我们",
    "他们",
    "可以",
    "没有",
    "什么",
    "时候",
    "中国",
    "问题",
    "进行",
    "系统",
    "服务",
    "网络",
    "配置",
    "软件",
    "安装",
    "用户",
    "数据",
    "文件",
    "管理",
    "使用",
    "需要",
    "如果",
    "因为",
    "所以",
    "发展",
    "社会",
    "经济",
    "政府",
    "工作",
    "学习",
    "操作系统",
    "计算机",
    "互联网",
    "人工智能",
    "自由软件",
    "请求",
    "响应",
    "限制",
    "模型",
    "渠道",
];

fn word(rng: &mut Rng) -> String {
    if rng.below(8) == 0 {
        (0..2 + rng.below(3)).map(|_| rng.pick(SYLLABLES)).collect()
    } else {
        rng.pick(WORDS).to_owned()
    }
}

pub fn english(rng: &mut Rng, length: usize) -> String {
    let mut text = String::new();
    while text.len() < length {
        let words = 5 + rng.below(18);
        for at in 0..words {
            let word = word(rng);
            if at == 0 {
                text.push(word.as_bytes()[0].to_ascii_uppercase().into());
                text.push_str(&word[1..]);
            } else {
                text.push_str(&word);
            }
            match rng.below(40) {
                0 => text.push_str("'s"),
                1 | 2 => text.push(','),
                3 => text.push_str(&format!(" ({})", rng.below(3000))),
                _ => {}
            }
            text.push_str(if at + 1 == words { ". " } else { " " });
        }
        if rng.below(5) == 0 {
            text.push_str("\n\n");
        }
    }
    text
}

pub fn chinese(rng: &mut Rng, length: usize) -> String {
    let mut text = String::new();
    while text.len() < length {
        for _ in 0..3 + rng.below(9) {
            if rng.below(8) == 0 {
                // Any ideograph, most of them rare.
                text.push(rng.scalar(0x4E00, 0x9FA5));
            } else {
                text.push_str(rng.pick(CJK));
            }
        }
        text.push_str(rng.pick(&["，", "。", "；", "、", "：", "。\n", " Debian ", "（2024）"]));
    }
    text
}

pub fn code(rng: &mut Rng, length: usize) -> String {
    let mut text = String::new();
    while text.len() < length {
        let (name, field) = (word(rng), word(rng));
        text.push_str(&format!(
            "    def {name}_{field}(self, {}=None, *args):\n",
            word(rng)
        ));
        for _ in 0..2 + rng.below(6) {
            let depth = "    ".repeat(2 + rng.below(3));
            match rng.below(4) {
                0 => text.push_str(&format!(
                    "{depth}if self.{} is not None and {} >= {}:\n",
                    word(rng),
                    word(rng),
                    rng.below(999)
                )),
                1 => text.push_str(&format!(
                    "{depth}return self._{}[\"{}\"].{}()\n",
                    word(rng),
                    word(rng),
                    word(rng)
                )),
                2 => text.push_str(&format!("{depth}# {} {} {}\n", word(rng), word(rng), word(rng))),
                _ => text.push_str(&format!(
                    "{depth}{} = {}({}, {}={})\n",
                    word(rng),
                    word(rng),
                    word(rng),
                    word(rng),
                    rng.below(99)
                )),
            }
        }
        text.push('\n');
    }
    text
}

pub fn json(rng: &mut Rng, length: usize) -> String {
    let mut text = String::from("{\"messages\":[");
    while text.len() < length {
        text.push_str(&format!(
            "{{\"role\":\"{}\",\"content\":\"{}\",\"id\":{},\"score\":{}.{},\"tags\":[\"{}\",\"{}\"],\"ok\":true}},",
            rng.pick(&["user", "assistant", "system"]),
            english(rng, 120).trim().replace('\n', "\\n"),
            rng.next() % 1_000_000,
            rng.below(10),
            rng.below(1000),
            word(rng),
            word(rng),
        ));
    }
    text.push_str("{}]}");
    text
}

fn mixed(rng: &mut Rng, length: usize) -> String {
    const RANGES: &[(u32, u32)] = &[
        (0x430, 0x450),
        (0x3B1, 0x3CA),
        (0x5D0, 0x5EB),
        (0x627, 0x64B),
        (0x905, 0x93A),
        (0xE01, 0xE2F),
        (0x3041, 0x3097),
        (0x30A1, 0x30FB),
        (0xAC00, 0xD7A4),
        (0xDF, 0x100),
        (0x561, 0x587),
        (0x10D0, 0x10F1),
    ];
    let mut text = String::new();
    while text.len() < length {
        let (from, to) = rng.pick(RANGES);
        for _ in 0..5 {
            for _ in 0..2 + rng.below(8) {
                text.push(rng.scalar(from, to));
            }
            text.push_str(rng.pick(&[" ", " ", ", ", ". ", " 12 "]));
        }
    }
    text
}

/// Documents of each natural kind, `length` bytes each, a different one per seed.
pub fn natural_like(seeds: std::ops::Range<u64>, length: usize) -> Vec<(&'static str, String)> {
    seeds
        .flat_map(|seed| {
            let mut rng = Rng::new(1000 + seed);
            [
                ("english", english(&mut rng, length)),
                ("chinese", chinese(&mut rng, length)),
                ("code", code(&mut rng, length)),
                ("json", json(&mut rng, length)),
                ("mixed", mixed(&mut rng, length)),
            ]
        })
        .collect()
}

/// The worst texts known, each about `length` bytes.
pub fn adversarial(length: usize) -> Vec<(&'static str, String)> {
    let mut rng = Rng::new(99);
    let mut texts: Vec<(&'static str, String)> = [
        ("a", "a"),
        ("A", "A"),
        ("ab", "ab"),
        ("z", "z"),
        ("caret", "^"),
        ("equals", "="),
        ("dash", "-"),
        ("star", "*"),
        ("underscore", "_"),
        ("dot", "."),
        ("slash", "/"),
        ("hash", "#"),
        ("space", " "),
        ("newline", "\n"),
        ("crlf", "\r\n"),
        ("space newline", " \n"),
        ("tab", "\t"),
        ("nbsp", "\u{a0}"),
        ("nbsp digit", "\u{a0}1"),
        ("digit", "1"),
        ("apostrophe s", "'s"),
        ("mark", "\u{301}"),
        ("han", "的"),
        ("han capital", "中A"),
        ("emoji", "\u{1f600}"),
        ("family", "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}"),
        ("zero", "\0"),
        ("max", "\u{10ffff}"),
        ("0xff", "ÿ"),
        ("backslash", "\\"),
        ("abc", "abcabcab"),
        ("aab", "aab"),
        ("hindi", "\u{939}\u{93f}\u{902}"),
    ]
    .into_iter()
    .map(|(name, unit): (_, &str)| (name, unit.repeat(length.div_ceil(unit.len()))))
    .collect();
    let mut random = |name, alphabet: &[char]| {
        let mut text = String::new();
        while text.len() < length {
            text.push(rng.pick(alphabet));
        }
        texts.push((name, text));
    };
    let lower: Vec<char> = ('a'..='z').collect();
    let base64: Vec<char> = ('a'..='z')
        .chain('A'..='Z')
        .chain('0'..='9')
        .chain(['+', '/'])
        .collect();
    let symbols: Vec<char> = ('!'..='/')
        .chain(':'..='@')
        .chain('['..='`')
        .chain('{'..='~')
        .collect();
    let han: Vec<char> = ('\u{4e00}'..='\u{9fa5}').collect();
    let rare: Vec<char> = ('\u{3400}'..='\u{4dbf}').collect();
    let astral: Vec<char> = ('\u{20000}'..='\u{2a6d0}').collect();
    let latin: Vec<char> = ('\u{e0}'..='\u{ff}').collect();
    random("random lower", &lower);
    random("random capitals", &('A'..='Z').collect::<Vec<_>>());
    random("two letters", &['a', 'e']);
    random("base64", &base64);
    random("random symbols", &symbols);
    random("random han", &han);
    random("rare han", &rare);
    random("astral han", &astral);
    random("random latin", &latin);
    random("random hangul", &('\u{ac00}'..='\u{d7a3}').collect::<Vec<_>>());
    random("random cyrillic", &('\u{430}'..='\u{44f}').collect::<Vec<_>>());
    random("random white", &[' ', '\n', '\t', '\r', '\u{a0}']);
    for (name, head, unit) in [
        ("han then capitals", "中", "A"),
        ("newline then spaces", "\n", " "),
        ("letter then marks", "a", "\u{301}"),
    ] {
        texts.push((name, format!("{head}{}", unit.repeat(length / unit.len()))));
    }
    texts
}
