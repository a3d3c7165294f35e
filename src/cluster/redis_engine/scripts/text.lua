-- A number as text. Not `..`, which keeps 14 digits: terms have 16.
local function text(number)
  return string.format('%.0f', number)
end
