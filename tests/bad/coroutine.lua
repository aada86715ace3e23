local co = coroutine.wrap(function() end)   -- expect: unknown name 'coroutine'
