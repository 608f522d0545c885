"use strict";
// One clip has one position and several sources. All sources play in sync and all but one are muted, so that switching is
// a cross-fade at the same sample, not a restart.
(() => {
  document.documentElement.classList.add("script");
  const FADE = 0.008;
  let context = null;
  let current = null;

  const bytes = (uri) => Uint8Array.from(atob(uri.slice(uri.indexOf(",") + 1)), (c) => c.charCodeAt(0)).buffer;
  const clock = (t) => `${Math.floor(t / 60)}:${(t % 60).toFixed(1).padStart(4, "0")}`;
  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

  class Clip {
    constructor(element) {
      this.element = element;
      this.panels = [...element.querySelectorAll(".panel")];
      this.seek = element.querySelector("input");
      this.time = element.querySelector("output");
      this.seconds = Number(element.dataset.seconds);
      this.position = 0;
      this.active = 0;
      this.nodes = null;
      this.buffers = null;
      this.wanted = false;
      this.panels.forEach((panel, i) => {
        panel.querySelector(".pick").addEventListener("click", () => this.choose(i));
        const plot = panel.querySelector(".plot");
        const to = (event) => {
          const box = plot.getBoundingClientRect();
          this.move(clamp((event.clientX - box.left) / box.width, 0, 1) * this.seconds);
        };
        // A mouse drags and a finger taps, so that scrolling over a spectrogram does not seek.
        plot.addEventListener("pointerdown", (event) => {
          if (event.pointerType !== "mouse" || event.button !== 0) return;
          plot.setPointerCapture(event.pointerId);
          this.choose(i);
          to(event);
        });
        plot.addEventListener("pointermove", (event) => {
          if (event.pointerType === "mouse" && plot.hasPointerCapture(event.pointerId)) to(event);
        });
        plot.addEventListener("click", (event) => {
          if (event.pointerType === "mouse") return;
          this.choose(i);
          to(event);
        });
      });
      element.querySelector(".play").addEventListener("click", () => this.toggle());
      this.seek.addEventListener("input", () => this.move(Number(this.seek.value) * this.seconds));
      element.addEventListener("focusin", () => select(this));
      element.addEventListener("pointerdown", () => select(this));
      this.draw();
    }

    now() {
      return this.nodes ? clamp(context.currentTime - this.origin, 0, this.seconds) : this.position;
    }

    async toggle() {
      if (this.wanted) return this.pause();
      select(this);
      clips.forEach((clip) => clip !== this && clip.pause());
      this.wanted = true;
      this.element.classList.add("playing");
      try {
        context ??= new AudioContext();
        await context.resume();
        this.buffers ??= await Promise.all(
          this.panels.map((panel) => context.decodeAudioData(bytes(panel.querySelector("audio").src)))
        );
      } catch (error) {
        this.pause();
        return this.complain(`This browser could not play the clip (${error.message || error}).`);
      }
      if (this.wanted && !this.nodes) this.start();
    }

    start() {
      if (this.position >= this.seconds) this.position = 0;
      const at = context.currentTime + 0.02;
      this.origin = at - this.position;
      this.nodes = this.buffers.map((buffer, i) => {
        const source = new AudioBufferSourceNode(context, { buffer });
        const gain = new GainNode(context, { gain: i === this.active ? 1 : 0 });
        source.connect(gain).connect(context.destination);
        source.start(at, this.position);
        return { source, gain };
      });
      const last = this.nodes[0].source;
      last.onended = () => {
        if (!this.nodes || this.nodes[0].source !== last) return;
        this.pause();
        this.position = 0;
        this.draw();
      };
      this.frame();
    }

    stop() {
      this.position = this.now();
      const nodes = this.nodes;
      this.nodes = null;
      nodes?.forEach(({ source }) => source.stop());
    }

    pause() {
      this.wanted = false;
      this.stop();
      this.element.classList.remove("playing");
      this.draw();
    }

    move(seconds) {
      const playing = Boolean(this.nodes);
      this.stop();
      this.position = clamp(seconds, 0, this.seconds);
      if (playing) this.start();
      this.draw();
    }

    choose(index) {
      if (index >= this.panels.length) return;
      this.active = index;
      this.nodes?.forEach(({ gain }, i) => {
        gain.gain.cancelScheduledValues(context.currentTime);
        gain.gain.setValueAtTime(gain.gain.value, context.currentTime);
        gain.gain.linearRampToValueAtTime(i === index ? 1 : 0, context.currentTime + FADE);
      });
      this.draw();
    }

    frame() {
      if (!this.nodes) return;
      this.draw();
      requestAnimationFrame(() => this.frame());
    }

    draw() {
      const now = this.now();
      const share = this.seconds ? now / this.seconds : 0;
      this.panels.forEach((panel, i) => {
        panel.classList.toggle("active", i === this.active);
        panel.querySelector(".pick").setAttribute("aria-pressed", String(i === this.active));
        panel.querySelector(".head").style.left = `${100 * share}%`;
      });
      this.seek.value = share;
      this.seek.setAttribute("aria-valuetext", clock(now));
      this.time.value = `${clock(now)} / ${clock(this.seconds)}`;
    }

    complain(text) {
      let line = this.element.querySelector(".problem");
      if (!line) {
        line = document.createElement("p");
        line.className = "problem";
        line.setAttribute("role", "alert");
        this.element.append(line);
      }
      line.textContent = text;
    }
  }

  function select(clip) {
    current?.element.classList.remove("current");
    current = clip;
    clip.element.classList.add("current");
  }

  const clips = [...document.querySelectorAll(".clip")].map((element) => new Clip(element));
  const views = [...document.querySelectorAll(".views input")];
  if (!clips.length) return;

  function step(by) {
    const from = current ? clips.indexOf(current) : by > 0 ? -1 : clips.length;
    const to = clips[clamp(from + by, 0, clips.length - 1)];
    const playing = Boolean(current?.wanted);
    select(to);
    to.element.focus({ preventScroll: true });
    to.element.scrollIntoView({ block: "nearest", behavior: "smooth" });
    if (playing && !to.wanted) to.toggle();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("summary, a, .views, .scroll")) return;
    if (event.key === "Escape" && current) {
      current.element.classList.remove("current");
      current = null;
    }
    const clip = current ?? clips[0];
    const keys = {
      " ": () => clip.toggle(),
      ArrowLeft: () => clip.move(clip.now() - (event.shiftKey ? 5 : 1)),
      ArrowRight: () => clip.move(clip.now() + (event.shiftKey ? 5 : 1)),
      ArrowUp: () => clip.choose((clip.active + clip.panels.length - 1) % clip.panels.length),
      ArrowDown: () => clip.choose((clip.active + 1) % clip.panels.length),
      j: () => step(1),
      k: () => step(-1),
      d: () => views.find((view) => !view.checked)?.click(),
    };
    // Arrows scroll the page until a clip is selected, and again after Escape.
    if (!current && event.key.startsWith("Arrow")) return;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const act = /^[1-9]$/.test(name) ? () => clip.choose(Number(name) - 1) : keys[name];
    if (!act) return;
    event.preventDefault();
    if (!current) select(clip);
    act();
  });
  // Space and arrows control playback even if a button or slider has the focus.
  document.addEventListener("keyup", (event) => event.key === " " && event.target.closest(".clip") && event.preventDefault());
})();
