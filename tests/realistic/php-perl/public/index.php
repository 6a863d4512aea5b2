<?php
require __DIR__ . '/../vendor/greeter/greet.php';
echo greet(getenv('APP_ENV') ?: 'nobody'), PHP_EOL;
