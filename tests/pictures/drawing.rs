//! Bars in SVG: a panel for each phase, a bar for each host.

use std::fmt::Write;

use crate::scenario::Scenario;
use crate::stage::Phase;

const BAR: usize = 34;
const GAP: usize = 12;
const HEIGHT: usize = 110;
const TOP: usize = 44;
const MARGIN: usize = 24;

/// The whole picture.
pub(crate) fn draw(scenario: &Scenario, phases: &[Phase]) -> String {
    let panel = scenario.hosts.len() * (BAR + GAP) + MARGIN;
    let (width, height) = (panel * phases.len() + MARGIN, TOP + HEIGHT + 44);
    let most = phases.iter().flat_map(Phase::percent).fold(1.0, f64::max);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\" fill=\"#57606a\" role=\"img\">\n<title>{}</title>\n",
        scenario.title,
    );
    for (number, phase) in phases.iter().enumerate() {
        let left = MARGIN + number * panel;
        let _ = writeln!(svg, "<text x=\"{left}\" y=\"18\" font-weight=\"bold\">{}</text>", phase.title);
        for (host, percent) in phase.percent().into_iter().enumerate() {
            let x = left + host * (BAR + GAP);
            let tall = (percent / most * HEIGHT as f64).round() as usize;
            let y = TOP + HEIGHT - tall;
            let middle = x + BAR / 2;
            let colour = if phase.marked.contains(&host) { "#d1603d" } else { "#3b82b6" };
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{BAR}\" height=\"{tall}\" fill=\"{colour}\"/>\n\
                 <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{percent:.0} %</text>\n\
                 <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                y - 4,
                TOP + HEIGHT + 16,
                scenario.hosts[host].label,
            );
        }
    }
    svg + "</svg>\n"
}
