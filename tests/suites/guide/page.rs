//! A page as it is written: its commands in their order, and what they are said to print.

/// Commands that stand together: a block ```` ```sh ````.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Where they begin, for messages.
    pub(crate) line: usize,
    pub(crate) commands: String,
    /// `sh retry`: what is said comes within a moment, to whoever asks again.
    pub(crate) is_retried: bool,
    /// `sh fails`: the last of them fails, as it should.
    pub(crate) fails: bool,
    /// The block ```` ```text ```` after them.
    pub(crate) output: Option<String>,
}

/// The blocks of a page.
///
/// # Panics
/// For a block of a language that nobody would run, and for a command outside of blocks: no command stays unrun.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = page.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            let is_command = ["`kubectl ", "`helm "].iter().any(|start| line.contains(start));
            assert!(!is_command, "line {number}: a command outside of a block");
            continue;
        };
        let content: String = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .flat_map(|line| [line, "\n"])
            .collect();
        if info == "text" {
            let block = blocks.last_mut().filter(|block| block.output.is_none());
            block.unwrap_or_else(|| panic!("line {number}: whose output?")).output = Some(content);
            continue;
        }
        let (is_retried, fails) = match info {
            "sh" => (false, false),
            "sh retry" => (true, false),
            "sh fails" => (false, true),
            "sh fails retry" => (true, true),
            other => panic!("line {number}: a block {other:?}; commands are `sh`, what they print is `text`"),
        };
        blocks.push(Block { line: number + 1, commands: content, is_retried, fails, output: None });
    }
    blocks
}

#[test]
fn blocks_are_found_with_their_output() {
    let page = "# Page\n```sh retry\na\nb\n```\nIt prints:\n```text\nc\n```\n```sh fails\nd\n```\n";
    let [first, second] = blocks(page).try_into().expect("two blocks");
    let (commands, output) = ("a\nb\n".into(), Some("c\n".into()));
    assert_eq!(first, Block { line: 3, commands, is_retried: true, fails: false, output });
    assert_eq!(
        second,
        Block { line: 11, commands: "d\n".into(), is_retried: false, fails: true, output: None }
    );
}

#[test]
#[should_panic(expected = "line 1: a command outside")]
fn a_command_in_a_sentence_is_refused() {
    blocks("Use `kubectl delete`.\n");
}

#[test]
#[should_panic(expected = "line 2: a block \"bash\"")]
fn a_block_that_would_not_be_run_is_refused() {
    blocks("\n```bash\nrm\n```\n");
}
