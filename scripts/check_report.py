#!/usr/bin/env python3
"""Looks at pages of `qft report` in headless Chromium: on a phone, a tablet and a desk, light and dark.

    apt-get install chromium
    python3 -m venv venv && venv/bin/pip install websocket-client==1.9.0
    venv/bin/python scripts/check_report.py --shots shots tuned/report.html ...

For each page, width and colour scheme, an error is: a request for anything but the page, a message on the console, a page that is
wider than its window, a text that is hard to read on its background (WCAG 2: a contrast below 4.5), labels of an axis that cover each
other, a chart without a curve, a curve that leaves no mark, and a pointer over a chart that shows no value. With --shots the
screenshots are kept, to be looked at: what is beautiful no program says.
"""

import argparse
import base64
import itertools
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

WIDTHS = [390, 800, 1400]
SCHEMES = ["light", "dark"]
CONTRAST = 4.5

# Says what is wrong with the page, a line each.
LOOK = """(() => {
  const wrong = [];
  const root = document.documentElement;
  if (root.scrollWidth > innerWidth) wrong.push(`${root.scrollWidth} pixels wide, the window has ${innerWidth}`);

  const channel = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = numbers(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const faint = new Set();
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility() || element.tagName === "SCRIPT") continue;
    const [a, b] = [light(numbers(getComputedStyle(element).color)), light(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < CONTRAST) faint.add(`contrast ${contrast.toFixed(2)} of .${element.className || element.tagName}`);
  }
  wrong.push(...faint);

  for (const plot of document.querySelectorAll(".plot")) {
    const title = plot.parentElement.querySelector("b").textContent;
    for (const axis of plot.querySelectorAll(".xs, .ys")) {
      const places = [...axis.children].map((label) => label.getBoundingClientRect());
      places.forEach((a, i) => places.slice(0, i).forEach((b) => {
        if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom) wrong.push(`${title}: labels overlap`);
      }));
    }
    const curves = plot.querySelectorAll(".curve");
    if (!curves.length) wrong.push(`${title}: no curve`);
    for (const curve of curves) {
      const d = curve.getAttribute("d");
      if (!/^M[\\d.-]+ [\\d.-]+/.test(d)) wrong.push(`${title}: the path is ${d.slice(0, 40)}`);
      if (!d.includes("L") && !curve.parentElement.querySelector(".dots")) wrong.push(`${title}: a curve leaves no mark`);
    }
  }
  if (!document.querySelector(".plot")) wrong.push("no chart");
  return wrong;
})()""".replace("CONTRAST", str(CONTRAST), 1)

# Where the first chart is, scrolled to; and what it says under a pointer.
CHART = """(() => {
  const plot = document.querySelector(".plot");
  if (!plot) return null;    // the page of a run that has just begun
  plot.scrollIntoView({ block: "center" });
  const { left, top, width, height } = plot.getBoundingClientRect();
  return { x: left + 0.6 * width, y: top + height / 2 };
})()"""
READOUT = "document.querySelector('.readout:not([hidden])')?.textContent ?? ''"


class Browser:
    """Chromium without a window, spoken to by the DevTools protocol."""

    def __init__(self, program, profile):
        import websocket

        line = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0"]
        line += [f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = profile / "DevToolsActivePort"
        for _ in range(600):
            if port.exists() and port.read_text().count("\n"):
                break
            time.sleep(0.1)
        address = f"http://127.0.0.1:{port.read_text().split()[0]}/json/list"
        tabs = json.load(urllib.request.urlopen(address))
        tab = next(tab for tab in tabs if tab["type"] == "page")
        self.socket = websocket.create_connection(tab["webSocketDebuggerUrl"], suppress_origin=True, timeout=120)
        self.ids, self.events = itertools.count(1), []
        for domain in ["Page", "Network", "Runtime", "Log"]:
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        number = next(self.ids)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == number:
                if "error" in message:
                    sys.exit(f"{method}: {message['error']['message']}")
                return message["result"]
            self.events.append(message)

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            sys.exit(f"the check itself fails: {result['exceptionDetails']['exception']['description']}")
        return result["result"]["value"]

    def open(self, url, width, scheme):
        self.events.clear()
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1 if width > 600 else 2, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=url)
        while self.value("document.readyState") != "complete":
            time.sleep(0.05)

    def heard(self, method):
        return [event["params"] for event in self.events if event["method"] == method]

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait()


def look(browser, page, width, scheme, shots):
    """What is wrong with a page, a line each."""
    url = page.resolve().as_uri()
    browser.open(url, width, scheme)
    wrong = browser.value(LOOK)
    if shots:
        size = browser.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": width, "height": size["height"], "scale": 1}
        image = browser.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        name = f"{page.parent.name}-{page.stem}-{width}-{scheme}.png"
        (shots / name).write_bytes(base64.b64decode(image))
    if place := browser.value(CHART):
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", **place)
        if not browser.value(READOUT).startswith("step "):
            wrong.append("no value under the pointer")
    asked = [event["request"]["url"] for event in browser.heard("Network.requestWillBeSent")]
    wrong += [f"asks for {other[:80]}" for other in asked if other != url and not other.startswith("data:")]
    wrong += [f"console: {event['entry']['text']}" for event in browser.heard("Log.entryAdded")]
    wrong += [f"script: {event['exceptionDetails']['text']}" for event in browser.heard("Runtime.exceptionThrown")]
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=pathlib.Path, metavar="PAGE")
    parser.add_argument("--shots", type=pathlib.Path, help="folder for screenshots")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    args = parser.parse_args()
    if not args.chromium:
        sys.exit("there is no Chromium; install it, or give --chromium PROGRAM")
    if args.shots:
        args.shots.mkdir(parents=True, exist_ok=True)
    failed = False
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(args.chromium, pathlib.Path(profile))
        try:
            for page, width, scheme in itertools.product(args.pages, WIDTHS, SCHEMES):
                wrong = look(browser, page, width, scheme, args.shots)
                print(f"{page} {width} {scheme}: {'; '.join(wrong) or 'good'}", flush=True)
                failed |= bool(wrong)
        finally:
            browser.close()
    sys.exit(failed)


if __name__ == "__main__":
    main()
