// Browsers start no Worker from a page that was opened as a file. There the search runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.appendChild(this.frame)
      const inside = this.frame.contentWindow
      window.addEventListener("message", event => {
        if (event.source !== inside) return
        const copy = new MessageEvent("message", {data: event.data})
        this.dispatchEvent(copy)
        if (this.onmessage) this.onmessage(copy)
      })
      const source = JSON.stringify(String(url))
      inside.document.open()
      inside.document.write(
        "<script>self.postMessage = data => parent.postMessage(data, '*');" +
        "self.importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise((done, failed) => {" +
        "const s = document.createElement('script'); s.src = url; s.onload = done; s.onerror = failed; document.body.append(s)" +
        "})), Promise.resolve())</" + "script><body><script src=" + source + "></" + "script>"
      )
      inside.document.close()
      this.frame.addEventListener("load", () => {
        this.ready = true
        this.waiting.splice(0).forEach(data => this.postMessage(data))
      })
    }
    postMessage(data) {
      if (!this.ready) return void this.waiting.push(data)
      this.frame.contentWindow.dispatchEvent(new MessageEvent("message", {data, source: window}))
    }
    terminate() { this.frame.remove() }
  }
}
