"""Strings on which implementations of WordPiece differ, to find out whether two of them agree.

Collected by comparing nine implementations with Hugging Face's on 20,000 random Unicode strings and on every code
point: six of the nine differ somewhere in this list.
"""

TEST_STRINGS: tuple[str, ...] = (
    # nothing, white space, and special tokens standing in the text
    "", " ", "   ", "\n\t\r\n", "\t\thello\t\tworld\r\n", "hello\rworld", "a", "[SEP]", "[CLS] hello [SEP]",
    "hello[SEP]world", "[sep] [cls] [mask] [pad] [unk]", "[MASK]ed [UNK] [PAD]", "[SEP", "SEP]", "[ SEP ]", "[UNK]word",
    "x[MASK]y[MASK]", "[CLS][CLS][SEP][SEP]", "[unused1] [unused10] [UNUSED1]", "##ing", "a##b ## # ##",
    # control and format characters, which are deleted or become a space
    "\x00\x01abc\x7fdef\x9f", "a\x0bb\x0cc\x1cd\x1ee\x85f", "\u0085next", "\ufeffBOM start",
    "zero\u200bwidth\u200cjoin\u200der\u2060x", "soft\u00adhyphen", "\u00a0nbsp\u00a0here\u202fthin\u3000ideo",
    "line\u2028sep\u2029para", "a\u2003b\u2009c\u205fd\u1680e", "\u180e\u200e\u200f\u202a\u202e\u2066",
    "\u061c\u06dd\u08e2 \U000e0001\U000e0020",
    # accents, case folding, ligatures
    "caf\u00e9 cafe\u0301 CAFE\u0301 CAF\u00c9", "na\u00efve \u00c5ngstr\u00f6m \u212bngstrom",
    "\u0130stanbul I\u0307 \u0131 ISTANBUL", "\u03a3\u0391\u03a3 \u039f\u0394\u039f\u03a3 \u03c3\u03c2",
    "\u00dfSTRASSE stra\u00dfe \u1e9e", "\ufb01 \ufb02 \ufb03 \ufb00", "\u01c5 \u01c4 \u01c6", "\u2126 \u03a9 K \u212a",
    "\u1e9b\u0323 \u1e69 s\u0323\u0307", "a\u0300\u0301\u0302\u0303b" + "\u0300" * 50, "\u0300\u0301",
    "\u0903 \u0bbe\u0d3e \u1ab0\u20dd\u20d0", "\u1e00\u1e01\u1eff \u0149 \u01f0 \u0390 \u03b0 \u0587 \u1e96",
    "\u0345 \u1fb3 \u1ffc \u1f88", "\u2167 \u24b6 \u24d0", "\U00010400\U00010428 \U000118a0 \U0001e900",
    "\ua64a \u1c88 \ua7ae \u026a", "\u0149 \u0344 \u0f73 \u0f75 \u0f81", "AbC DeF GHI jKl",
    # scripts, with and without spaces between words
    "\u4f60\u597d\u4e16\u754c hello\u4e16\u754cworld",
    "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c \u30ab\u30bf\u30ab\u30ca \uff76\uff80\uff76\uff85",
    "\ud55c\uad6d\uc5b4 \ubb38\uc7a5\uc785\ub2c8\ub2e4 \u1112\u1161\u11ab", "\ud7a3\uac00 \u1100\u1161",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u064b\u064c\u064d",
    "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd", "\u041f\u0440\u0438\u0432\u0435\u0442, \u0439 \u0438\u0306 \u0451",
    "\u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0 \u1c92\u1c90", "\u13a0\u13e3\u13b3 \uab70",
    "\uf900\ufa0e \u2f00 \u31c0 \u3400", "\U00020000\U0002a6d6\U0002f800 \U00030000 \U00031350",
    "\u3007 \u3005 \u3006 \u300c\u300d",
    # emoji, private use, non-characters, symbols, fillers
    "\U0001f600\U0001f3fd\u200d\U0001f4bb \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1fa\U0001f1f8 \u2764\ufe0f",
    "a\U0001f600b", "\ue000\uf8ff private \U000f0000", "\ufffd \ufffe \uffff \ufdd0",
    "\U0001d400\U0001d4d0 math \u2460 \u00bd \u00b2", "\u115f\u1160\u3164\uffa0",
    # punctuation
    "$100.50 (50%) #tag @user a_b a-b--c 'quoted' \"dq\" \\ / | ~ ` ^ + = < > $ _", "\u00aa\u00ba \u02bc \u2019s",
    "\u201ccurly\u201d \u2018q\u2019 \u2014 \u2013 \u2026 \u00ab\u00bb \u00bf\u00a1 \u00a7 \u00b6 \u2022 \u20ac \u2122",
    "http://example.com/a?b=c&d=e#f me@x.org", "1,000,000.00 3.14e-10 0xDEADBEEF",
    "\u0640 \u00b7 \u0387 \u055a \u05be \u0964 \u1360 \u166d",
    # words around the 100 characters at which WordPiece gives up
    "x" * 99, "x" * 100, "x" * 101, "x" * 5000, "\u00e9" * 100, "\u00e9" * 101, "e\u0301" * 100, "e\u0301" * 101,
    "\u4e00" * 300, "ab" * 50 + " " + "ab" * 51, "a" * 50 + "\u0301" * 60,
)
