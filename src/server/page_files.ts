/** The files of the page at `/`, as text within the program. */
import uplotScript from "uplot/dist/uPlot.iife.min.js" with { type: "text" };
import uplotStyle from "uplot/dist/uPlot.min.css" with { type: "text" };
import access from "../page/access.js" with { type: "text" };
import chat from "../page/chat.js" with { type: "text" };
import dom from "../page/dom.js" with { type: "text" };
import feed from "../page/feed.js" with { type: "text" };
import format from "../page/format.js" with { type: "text" };
import hosts from "../page/hosts.js" with { type: "text" };
import icon from "../page/icon.svg" with { type: "text" };
import index from "../page/index.html" with { type: "text" };
import instances from "../page/instances.js" with { type: "text" };
import main from "../page/main.js" with { type: "text" };
import marks from "../page/marks.js" with { type: "text" };
import model from "../page/model.js" with { type: "text" };
import operate from "../page/operate.js" with { type: "text" };
import plots from "../page/plots.js" with { type: "text" };
import pointing from "../page/pointing.js" with { type: "text" };
import style from "../page/style.css" with { type: "text" };

/** The document; what follows `<base href="` is for the server to set. */
export const document: string = index;

/** By the name after `/page/`. */
export const files: ReadonlyMap<string, string> = new Map<string, string>([
  ["access.js", access],
  ["chat.js", chat],
  ["dom.js", dom],
  ["feed.js", feed],
  ["format.js", format],
  ["hosts.js", hosts],
  ["icon.svg", icon],
  ["instances.js", instances],
  ["main.js", main],
  ["marks.js", marks],
  ["model.js", model],
  ["operate.js", operate],
  ["plots.js", plots],
  ["pointing.js", pointing],
  ["style.css", style],
  ["uplot.css", uplotStyle],
  ["uplot.js", uplotScript],
]);
