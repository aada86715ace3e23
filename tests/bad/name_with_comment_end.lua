local hd = require "heddle"
local x = hd.input("a*/ int main;", { 4 })   -- expect: hd.input: the name holds */, which it cannot
