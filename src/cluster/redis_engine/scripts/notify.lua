-- Tells a node: `M`, another one has opened the parcel of this term; or `Y`, another one has the device with this term.
local function notify(node, kind, term, key, device)
  -- The user stands after PREFIX:d:, which is as long as PREFIX:i:.
  local user = string.sub(key, #ARGV[3] + 1)
  call('PUBLISH', ARGV[3] .. node, 'N' .. kind .. term .. ' ' .. #user .. ' ' .. user .. device)
end
